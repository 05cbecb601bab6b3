package service

import (
	"context"
	"errors"
	"syscall"

	"udm/ctl"
	"udm/ctl/server/state"
	"udm/dm"
)

// Create implements [ctl.Service]. With a table it also loads and resumes it; if that
// fails the device is removed.
func (s *Service) Create(ctx context.Context, r ctl.Create) (ctl.Device, error) {
	if err := s.settled(ctx); err != nil {
		return ctl.Device{}, err
	}
	specs, err := s.state.Parse(r.Table)
	if err != nil {
		return ctl.Device{}, err
	}
	minor := -1
	if r.Minor != nil {
		minor = int(*r.Minor)
	}
	d, err := s.control.Create(r.Name, r.UUID, minor)
	if err != nil {
		return ctl.Device{}, failed("create", nil, err)
	}
	if err := s.furnish(ctx, d, specs, dm.Mode{Write: !r.ReadOnly}); err != nil {
		return ctl.Device{}, err
	}
	return s.describe(d, ctl.Query{}), nil
}

// furnish loads the table of a new device, if given, and saves the device. If that
// fails the device is removed.
func (s *Service) furnish(ctx context.Context, d *dm.Device, specs []dm.Spec, mode dm.Mode) error {
	err := s.state.Prepare(d, s.state.Loading(specs, mode, true))
	if err == nil && len(specs) > 0 {
		err = bringUp(ctx, d, specs, mode)
	}
	if err == nil {
		err = s.state.Save(d)
	}
	if err != nil {
		s.log.Warn("a device was not created", "device", d.Name(), "reason", err)
		return errors.Join(err, d.Close(), s.state.Save(d))
	}
	return nil
}

func bringUp(ctx context.Context, d *dm.Device, specs []dm.Spec, mode dm.Mode) error {
	if err := d.Load(specs, mode); err != nil {
		return failed("reload", d, err)
	}
	if err := d.Resume(ctx, false); err != nil {
		return failed("resume", d, err)
	}
	return nil
}

// failed says which step of a create failed.
func failed(step string, d *dm.Device, err error) error {
	e := ctl.NewError(err)
	e.Step = step
	if d != nil {
		n := ctl.Number(d.Number())
		e.Number = &n
	}
	return e
}

// changed saves a device and describes it.
func (s *Service) changed(d *dm.Device) (ctl.Device, error) {
	if err := s.state.Save(d); err != nil {
		s.log.Error("cannot save a device", "device", d.Name(), "reason", err)
		return ctl.Device{}, err
	}
	return s.describe(d, ctl.Query{}), nil
}

// change reserves space in the saved state, changes the device, saves it and
// describes it. It saves the actual state, also if do fails.
func (s *Service) change(d *dm.Device, c state.Change, do func() error) (ctl.Device, error) {
	if err := s.state.Prepare(d, c); err != nil {
		s.log.Error("cannot save a device", "device", d.Name(), "reason", err)
		return ctl.Device{}, err
	}
	err := do()
	desc, serr := s.changed(d)
	if err != nil {
		return ctl.Device{}, err
	}
	return desc, serr
}

// alone runs a command that would interfere with an operation on volumes.
func (s *Service) alone(ctx context.Context, d *dm.Device, f func() (ctl.Device, error)) (desc ctl.Device, err error) {
	err = s.volumes.Alone(ctx, d.Name(), func() error {
		desc, err = f()
		return err
	})
	return desc, err
}

// Load implements [ctl.Service].
func (s *Service) Load(ctx context.Context, r ctl.Load) (ctl.Device, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	return s.alone(ctx, d, func() (ctl.Device, error) { return s.load(d, r) })
}

func (s *Service) load(d *dm.Device, r ctl.Load) (ctl.Device, error) {
	specs, err := s.state.Parse(r.Table)
	if err != nil {
		return ctl.Device{}, err
	}
	mode := dm.Mode{Write: !r.ReadOnly}
	return s.change(d, s.state.Loading(specs, mode, false), func() error {
		err := d.Load(specs, mode)
		if err != nil {
			s.log.Warn("a table was refused", "device", d.Name(), "reason", err)
		}
		return err
	})
}

// Clear implements [ctl.Service].
func (s *Service) Clear(ctx context.Context, r ctl.Ref) (ctl.Device, error) {
	d, err := s.begin(ctx, r)
	if err != nil {
		return ctl.Device{}, err
	}
	return s.change(d, state.Clearing(), func() error {
		d.Clear()
		s.state.Cleared(d)
		return nil
	})
}

// Suspend implements [ctl.Service].
func (s *Service) Suspend(ctx context.Context, r ctl.Suspend) (ctl.Device, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	return s.change(d, state.Suspending(), func() error { return d.Suspend(ctx, r.Noflush) })
}

// Resume implements [ctl.Service]. It saves also after a failure, which discards the
// inactive table.
func (s *Service) Resume(ctx context.Context, r ctl.Suspend) (ctl.Device, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	return s.change(d, state.Resuming(), func() error {
		err := d.Resume(ctx, r.Noflush)
		s.state.Resumed(d)
		s.resumed(d)
		return err
	})
}

// resumed reports the new size of a device to those who depend on it.
func (s *Service) resumed(d *dm.Device) {
	s.kernel.Resumed(d)
	s.sockets.Resumed(d)
}

// Remove implements [ctl.Service].
func (s *Service) Remove(ctx context.Context, r ctl.Remove) error {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return err
	}
	return s.volumes.Alone(ctx, d.Name(), func() error { return s.remove(d, r.Deferred) })
}

func (s *Service) remove(d *dm.Device, deferred bool) (err error) {
	if d.Status().Opens == 0 {
		err = s.state.Erase(d)
	} else if deferred {
		err = s.state.Prepare(d, state.Marking())
	}
	if err != nil {
		return err
	}
	_, err = d.Remove(deferred)
	s.sockets.Removed()
	return errors.Join(err, s.state.Save(d))
}

// RemoveAll implements [ctl.Service].
func (s *Service) RemoveAll(ctx context.Context, r ctl.Remove) error {
	if r.Ref != (ctl.Ref{}) {
		return dm.Errorf(syscall.EINVAL, "remove_all does not take a device")
	}
	if err := s.settled(ctx); err != nil {
		return err
	}
	if ops := s.volumes.Operations(); len(ops) > 0 {
		return dm.Errorf(syscall.EBUSY, "%s of %s is in progress; wait for it: udm operations", ops[0].Kind, ops[0].Objects[0])
	}
	ds := s.control.List()
	s.control.RemoveAll(r.Deferred)
	s.sockets.Removed()
	var err error
	for _, d := range ds {
		err = errors.Join(err, s.state.Save(d))
	}
	return err
}

// Rename implements [ctl.Service].
func (s *Service) Rename(ctx context.Context, r ctl.Rename) (ctl.Device, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	switch {
	case r.NewUUID != "" && r.NewName != "":
		return ctl.Device{}, dm.Errorf(syscall.EINVAL, "give either a new name or a new uuid, not both")
	case r.NewUUID != "":
		s.naming.Lock()
		defer s.naming.Unlock()
		return s.change(d, state.Identifying(r.NewUUID), func() error { return d.SetUUID(r.NewUUID) })
	}
	return s.alone(ctx, d, func() (ctl.Device, error) { return s.rename(d, r.NewName) })
}

func (s *Service) rename(d *dm.Device, to string) (ctl.Device, error) {
	s.naming.Lock()
	defer s.naming.Unlock()
	before := d.Name()
	desc, err := s.change(d, state.Naming(to), func() error { return d.Rename(to) })
	if err != nil && d.Name() != before {
		err = errors.Join(err, d.Rename(before), s.state.Save(d))
	}
	return desc, err
}

// Message implements [ctl.Service]. It saves afterwards, because
// @cancel_deferred_remove changes saved state.
func (s *Service) Message(ctx context.Context, r ctl.Message) (string, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return "", err
	}
	return s.message(d, r.Sector, r.Text)
}

func (s *Service) message(d *dm.Device, sector uint64, text string) (string, error) {
	before := d.Status().DeferredRemove
	answer, err := d.Message(sector, text)
	if err == nil && before != d.Status().DeferredRemove {
		_, err = s.changed(d)
	}
	return answer, err
}

// Wait implements [ctl.Service].
func (s *Service) Wait(ctx context.Context, r ctl.Wait) (ctl.Device, error) {
	d, err := s.begin(ctx, r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	if err := d.Wait(ctx, r.Event); err != nil {
		return ctl.Device{}, err
	}
	// A removal counts as an event.
	if now, err := s.control.Number(d.Number()); err != nil || now != d {
		return summary(d.Status()), nil
	}
	return s.describe(d, ctl.Query{}), nil
}
