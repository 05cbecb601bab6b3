package rig

import (
	"context"
	"errors"
	"io"

	"udm/ctl"
	"udm/volume"
)

// Moment is when a daemon is killed, seen from a command that changes something.
type Moment int

// The moments.
const (
	Before  Moment = iota // the command does not reach the daemon
	Beside                // it does, and is cut off somewhere
	After                 // it is done, but the answer is lost
	Moments               // how many there are
)

// Killer is the service of a daemon that is killed at one of the commands that change
// something.
type Killer struct {
	ctl.Service
	Daemon *Daemon
	At     int // the number of that command, from 0
	Moment Moment
	count  int
}

// Killed reports whether the daemon was killed.
func (k *Killer) Killed() bool { return k.count > k.At }

var errLost = errors.New("the answer was lost")

func (k *Killer) around(do func() error) error {
	k.count++
	if k.count != k.At+1 {
		return do()
	}
	switch k.Moment {
	case Before:
		k.Daemon.Kill()
		return do()
	case Beside:
		done := make(chan error)
		go func() { done <- do() }()
		k.Daemon.Kill()
		return <-done
	}
	_ = do()
	k.Daemon.Kill()
	return errLost
}

func (k *Killer) CreatePool(ctx context.Context, r volume.PoolSpec) error {
	return k.around(func() error { return k.Service.CreatePool(ctx, r) })
}

func (k *Killer) CreateVolume(ctx context.Context, r ctl.CreateVolume) error {
	return k.around(func() error { return k.Service.CreateVolume(ctx, r) })
}

func (k *Killer) Snapshot(ctx context.Context, r volume.SnapshotSpec) error {
	return k.around(func() error { return k.Service.Snapshot(ctx, r) })
}

func (k *Killer) Clone(ctx context.Context, r volume.CloneSpec) error {
	return k.around(func() error { return k.Service.Clone(ctx, r) })
}

func (k *Killer) Label(ctx context.Context, r volume.LabelSpec) error {
	return k.around(func() error { return k.Service.Label(ctx, r) })
}

func (k *Killer) RemoveObject(ctx context.Context, r volume.RemoveSpec) error {
	return k.around(func() error { return k.Service.RemoveObject(ctx, r) })
}

func (k *Killer) RenameObject(ctx context.Context, r ctl.RenameObject) error {
	return k.around(func() error { return k.Service.RenameObject(ctx, r) })
}

func (k *Killer) Resize(ctx context.Context, r volume.ResizeSpec) error {
	return k.around(func() error { return k.Service.Resize(ctx, r) })
}

func (k *Killer) Mount(ctx context.Context, r ctl.Mount) error {
	return k.around(func() error { return k.Service.Mount(ctx, r) })
}

func (k *Killer) Attach(ctx context.Context, r ctl.Attach) (a ctl.Attachment, err error) {
	err = k.around(func() (err error) {
		a, err = k.Service.Attach(ctx, r)
		return err
	})
	return a, err
}

func (k *Killer) Detach(ctx context.Context, r ctl.Ref) error {
	return k.around(func() error { return k.Service.Detach(ctx, r) })
}

func (k *Killer) Receive(ctx context.Context, r volume.ReceiveSpec, in io.Reader) (got volume.Received, err error) {
	err = k.around(func() (err error) {
		got, err = k.Service.Receive(ctx, r, in)
		return err
	})
	return got, err
}
