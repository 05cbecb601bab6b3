//go:build !linux

package filedev

import "udm/blk"

// ring does transfers by io_uring, where there is one.
type ring struct{}

func newRing(*Device, int) (*ring, error) { return nil, nil }
func (*ring) take(*blk.Bio) bool          { return false }
func (*ring) close()                      {}
