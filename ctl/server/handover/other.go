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

// Give fails.
func (*Successor) Give(*Bundle) error { return errSystem }

// Go fails.
func (*Successor) Go() error { return errSystem }

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
func (*Predecessor) Receive() (*Bundle, error) { return nil, errSystem }

// Refuse does nothing.
func (*Predecessor) Refuse(error) {}

// Ready fails.
func (*Predecessor) Ready() error { return errSystem }

// Kept is false.
func Kept(string) bool { return false }

// Keep fails.
func Keep(string, *Bundle) error { return errSystem }

// TakeKept takes nothing.
func TakeKept(string) (*Bundle, error) { return nil, nil }

// ServeKeeper fails.
func ServeKeeper(context.Context, string, *slog.Logger, func()) error { return errSystem }
