package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"udm/ctl"
	"udm/ctl/server/state"
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

// Create takes the names, saves the devices beside what is saved of them, brings them up
// in order, and makes what is saved the truth.
func (v devices) Create(ctx context.Context, ds []volume.Device) error {
	made, err := v.take(ds)
	if err != nil {
		return err
	}
	return v.furnish(ctx, made)
}

// take makes devices without tables, which furnish gives them.
func (v devices) take(ds []volume.Device) (made []dm.Change, err error) {
	for _, n := range ds {
		d, err := v.s.control.Create(n.Name, "", -1)
		if err != nil {
			return made, err
		}
		v.s.state.SetRecord(d, n.Record)
		made = append(made, dm.Change{Device: d, Mode: dm.Mode{Write: !n.ReadOnly}})
	}
	for i, n := range ds { // a table may name devices that come later
		made[i].Specs = v.s.state.Lasting(n.Table)
	}
	return made, nil
}

func (v devices) furnish(ctx context.Context, cs []dm.Change) error {
	ds := make([]*dm.Device, len(cs))
	changes := make([]state.Change, len(cs))
	for i, c := range cs {
		ds[i], changes[i] = c.Device, v.s.state.Loading(c.Specs, c.Mode, true)
	}
	if err := v.s.state.PrepareAll(ds, changes); err != nil {
		return err
	}
	for _, c := range cs {
		if len(c.Specs) == 0 {
			continue
		}
		if err := bringUp(ctx, c.Device, c.Specs, c.Mode); err != nil {
			v.s.log.Warn("a device was not created", "device", c.Device.Name(), "reason", err)
			return err
		}
	}
	return v.s.state.SaveAll(ds)
}

// Swap saves the new state of the devices, applies it, and saves the actual state if
// that fails.
func (v devices) Swap(ctx context.Context, ds []volume.Device, independent bool) error {
	cs := make([]dm.Change, len(ds))
	for i, n := range ds {
		d, err := v.named(n.Name)
		if err != nil {
			return err
		}
		cs[i] = dm.Change{Device: d, Specs: v.s.state.Lasting(n.Table), Mode: dm.Mode{Write: !n.ReadOnly}}
	}
	if err := v.announce(cs, ds, independent); err != nil {
		return v.withdraw(err, cs)
	}
	if err := dm.Exchange(ctx, v.changing(cs, ds)); err != nil {
		return v.withdraw(err, cs)
	}
	for _, c := range cs {
		v.s.state.Arrived(c.Device)
		v.s.resumed(c.Device)
	}
	return nil
}

// announce saves the new states of devices: in order, unless they are independent.
func (v devices) announce(cs []dm.Change, ds []volume.Device, independent bool) error {
	records := make([]volume.Record, len(ds))
	for i, d := range ds {
		records[i] = d.Record
	}
	if independent {
		return v.s.state.AnnounceAll(cs, records)
	}
	for i, c := range cs {
		if err := v.s.state.AnnounceAll([]dm.Change{c}, records[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}

// changing omits the tables that are live already, unless they are to be reloaded.
func (v devices) changing(cs []dm.Change, ds []volume.Device) []dm.Change {
	out := make([]dm.Change, len(cs))
	for i, c := range cs {
		if !ds[i].Reload && v.s.state.IsLive(c.Device, c.Specs, c.Mode) {
			c.Specs = nil
		}
		out[i] = c
	}
	return out
}

// withdraw saves the actual state, of the last device first, and ends where that fails:
// what a restart finds is then new up to some device, as after a crash.
func (v devices) withdraw(err error, cs []dm.Change) error {
	for _, c := range slices.Backward(cs) {
		if serr := v.s.state.Withdraw(c.Device); serr != nil {
			return errors.Join(err, serr, volume.ErrUnsure)
		}
	}
	return err
}

// Remove erases what is saved of the devices, removes them, and saves those that are
// there after all.
func (v devices) Remove(_ context.Context, names []string) error {
	var ds []*dm.Device
	for _, name := range names {
		d, err := v.s.control.Name(name)
		if err != nil {
			continue
		}
		if d.Status().Opens > 0 {
			return dm.Errorf(syscall.EBUSY, "%s is in use; udm status --clients %s shows by whom", name, name)
		}
		ds = append(ds, d)
	}
	err := v.s.state.EraseAll(ds)
	if err == nil {
		err = v.s.control.RemoveTogether(ds)
		v.s.sockets.Removed()
	}
	return v.truth(ds, errors.Join(err, v.s.state.SaveAll(ds)))
}

// truth saves the actual state after a command that may have failed. If that is
// impossible, the state on the disk is unknown, and so is the command's effect.
func (v devices) truth(ds []*dm.Device, err error) error {
	if err == nil {
		return nil
	}
	for _, d := range ds {
		if serr := v.s.state.Withdraw(d); serr != nil {
			err = errors.Join(err, serr, volume.ErrUnsure)
		}
	}
	return err
}

// Note saves the record, or what was before.
func (v devices) Note(name string, r volume.Record) error {
	d, err := v.named(name)
	if err != nil {
		return err
	}
	was := v.s.state.Record(d)
	v.s.state.SetRecord(d, r)
	if err = v.s.state.Save(d); err != nil {
		v.s.state.SetRecord(d, was)
	}
	return v.truth([]*dm.Device{d}, err)
}

func (v devices) Rename(_ context.Context, name, to string) error {
	d, err := v.named(name)
	if err != nil {
		return err
	}
	_, err = v.s.rename(d, to)
	return v.truth([]*dm.Device{d}, err)
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
