//go:build !linux

package main

import "time"

// queued is not known here.
type queued struct{}

func newQueued() *queued               { return &queued{} }
func (*queued) begin()                 {}
func (*queued) longest() time.Duration { return 0 }
func (*queued) close()                 {}
