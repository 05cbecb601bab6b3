//go:build !unix

package handover

import (
	"context"
	"errors"
	"log/slog"
	"os/exec"
)

var errSystem = errors.New("a daemon on this system cannot be replaced while it runs; restart it")

// Successor is the new process: there is none on this system.
type Successor struct{}

// Start fails.
func Start(*exec.Cmd, Greeting) (*Successor, error) { return nil, errSystem }

// Do fails.
func (*Successor) Do(Order, *Bundle) error { return errSystem }

// Go fails.
func (*Successor) Go() error { return errSystem }

// Finish fails.
func (*Successor) Finish() error { return errSystem }

// Return fails.
func (*Successor) Return() (*Bundle, error) { return nil, errSystem }

// PID is 0.
func (*Successor) PID() int { return 0 }

// Kill does nothing.
func (*Successor) Kill() {}

// Predecessor is the old process: there is none on this system.
type Predecessor struct{}

// Inherited is nil.
func Inherited() (*Predecessor, error) { return nil, nil }

// Greet fails.
func (*Predecessor) Greet(func(Greeting) error) error { return errSystem }

// Receive fails.
func (*Predecessor) Receive() (Order, *Bundle, error) { return "", nil, errSystem }

// Refuse fails.
func (*Predecessor) Refuse(error) error { return errSystem }

// Ready fails.
func (*Predecessor) Ready() error { return errSystem }

// Give fails.
func (*Predecessor) Give(*Bundle) error { return errSystem }

// Ended fails.
func (*Predecessor) Ended() error { return errSystem }

// Close does nothing.
func (*Predecessor) Close() {}

// Kept is false.
func Kept(string) bool { return false }

// Keep fails.
func Keep(string, *Bundle) error { return errSystem }

// TakeKept takes nothing.
func TakeKept(string) (*Bundle, error) { return nil, nil }

// ServeKeeper fails.
func ServeKeeper(context.Context, string, *slog.Logger, func()) error { return errSystem }
