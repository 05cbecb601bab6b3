package service

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"udm/ctl"
	"udm/dm"
	"udm/volume"
)

// devices is the service as seen by the volume manager: its commands save, and do not
// wait until everything is restored.
type devices struct{ s *Service }

var _ volume.Devices = devices{}

func (v devices) Control() *dm.Control { return v.s.control }

func (v devices) Record(name string) volume.Record {
	d, err := v.s.control.Name(name)
	if err != nil {
		return volume.Record{}
	}
	return v.s.state.Record(d)
}

func (v devices) Create(ctx context.Context, ds []volume.Device) error {
	for _, n := range ds {
		d, err := v.s.control.Create(n.Name, "", -1)
		if err != nil {
			return err
		}
		v.s.state.SetRecord(d, n.Record)
		if err := v.s.furnish(ctx, d, v.s.state.Lasting(n.Table), dm.Mode{Write: !n.ReadOnly}); err != nil {
			return err
		}
	}
	return nil
}

// Swap saves the new state of the devices, applies it, and saves the actual state if
// that fails.
func (v devices) Swap(ctx context.Context, ds []volume.Device) error {
	cs := make([]dm.Change, len(ds))
	for i, n := range ds {
		d, err := v.named(n.Name)
		if err != nil {
			return err
		}
		cs[i] = dm.Change{Device: d, Specs: v.s.state.Lasting(n.Table), Mode: dm.Mode{Write: !n.ReadOnly}}
	}
	for i, c := range cs {
		if err := v.s.state.Announce(c.Device, c.Specs, c.Mode, ds[i].Record); err != nil {
			return v.withdraw(err, cs[:i+1])
		}
	}
	if err := dm.Exchange(ctx, v.changing(cs)); err != nil {
		return v.withdraw(err, cs)
	}
	for _, c := range cs {
		v.s.state.Arrived(c.Device)
		v.s.resumed(c.Device)
	}
	return nil
}

// changing omits the tables that are live already.
func (v devices) changing(cs []dm.Change) []dm.Change {
	out := make([]dm.Change, len(cs))
	for i, c := range cs {
		if v.s.state.IsLive(c.Device, c.Specs, c.Mode) {
			c.Specs = nil
		}
		out[i] = c
	}
	return out
}

// withdraw saves the actual state.
func (v devices) withdraw(err error, cs []dm.Change) error {
	for _, c := range cs {
		if serr := v.s.state.Withdraw(c.Device); serr != nil {
			err = errors.Join(err, serr, volume.ErrUnsure)
		}
	}
	return err
}

func (v devices) Remove(_ context.Context, name string) error {
	d, err := v.named(name)
	if err != nil {
		return err
	}
	if d.Status().Opens > 0 {
		return dm.Errorf(syscall.EBUSY, "%s is in use; udm status --clients %s shows who uses it", name, name)
	}
	return v.truth(d, v.s.remove(d, false))
}

// truth saves the actual state after a command that may have failed. If that is
// impossible, the state on the disk is unknown, and so is the command's effect.
func (v devices) truth(d *dm.Device, err error) error {
	if err == nil {
		return nil
	}
	return v.withdraw(err, []dm.Change{{Device: d}})
}

func (v devices) Rename(_ context.Context, name, to string) error {
	d, err := v.named(name)
	if err != nil {
		return err
	}
	_, err = v.s.rename(d, to)
	return v.truth(d, err)
}

func (v devices) Message(_ context.Context, name, text string) (string, error) {
	d, err := v.named(name)
	if err != nil {
		return "", err
	}
	answer, err := v.s.message(d, 0, text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return answer, nil
}

func (v devices) named(name string) (*dm.Device, error) {
	return v.s.find(ctl.Ref{Name: name})
}

// tellChangedBases warns of images that were changed although clones depend on them.
func (s *Service) tellChangedBases() {
	for _, d := range s.control.List() {
		if text := s.volumes.Changed(d.Name()); text != "" {
			s.log.Warn(text)
		}
	}
}
