package server

import (
	"context"
	"errors"
	"syscall"

	"udm/ctl"
	"udm/dm"
)

// create makes a device and, with a table, brings it up; when that fails
// nothing is left of it.
func (s *Server) create(ctx context.Context, r ctl.Create) (ctl.Device, error) {
	specs, err := s.parse(r.Table)
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
	if len(specs) > 0 {
		if err := bringUp(ctx, d, specs, dm.Mode{Write: !r.ReadOnly}); err != nil {
			return ctl.Device{}, errors.Join(err, d.Close())
		}
	}
	return s.changed(d)
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

// failed says in which step a create failed.
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
func (s *Server) changed(d *dm.Device) (ctl.Device, error) {
	if err := s.save(d); err != nil {
		s.log.Error("saving a device failed", "device", d.Name(), "reason", err)
		return ctl.Device{}, &ctl.Error{Errno: "EIO", Reason: err.Error()}
	}
	return s.describe(d, ctl.Query{}), nil
}

func (s *Server) load(_ context.Context, r ctl.Load) (ctl.Device, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	specs, err := s.parse(r.Table)
	if err != nil {
		return ctl.Device{}, err
	}
	if err := d.Load(specs, dm.Mode{Write: !r.ReadOnly}); err != nil {
		return ctl.Device{}, err
	}
	return s.changed(d)
}

func (s *Server) clear(_ context.Context, r ctl.Ref) (ctl.Device, error) {
	d, err := s.find(r)
	if err != nil {
		return ctl.Device{}, err
	}
	d.Clear()
	s.dropWaiting(d, true)
	return s.changed(d)
}

func (s *Server) suspend(ctx context.Context, r ctl.Suspend) (ctl.Device, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	if err := d.Suspend(ctx, r.Noflush); err != nil {
		return ctl.Device{}, err
	}
	return s.changed(d)
}

// resume saves also when it fails: the inactive table is lost then.
func (s *Server) resume(ctx context.Context, r ctl.Suspend) (ctl.Device, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	rerr := d.Resume(ctx, r.Noflush)
	if d.Status().Live {
		s.dropWaiting(d, false)
		s.files.resumed(d)
	}
	desc, err := s.changed(d)
	if rerr != nil {
		return ctl.Device{}, rerr
	}
	return desc, err
}

func (s *Server) remove(_ context.Context, r ctl.Remove) (struct{}, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return struct{}{}, err
	}
	if _, err = d.Remove(r.Deferred); err == nil {
		_, err = s.changed(d)
	}
	return struct{}{}, err
}

func (s *Server) removeAll(_ context.Context, r ctl.Remove) (struct{}, error) {
	if r.Ref != (ctl.Ref{}) {
		return struct{}{}, dm.Errorf(syscall.EINVAL, "remove_all takes no device")
	}
	ds := s.control.List()
	s.control.RemoveAll(r.Deferred)
	var err error
	for _, d := range ds {
		err = errors.Join(err, s.save(d))
	}
	return struct{}{}, err
}

func (s *Server) rename(_ context.Context, r ctl.Rename) (ctl.Device, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	switch {
	case r.NewUUID != "" && r.NewName != "":
		err = dm.Errorf(syscall.EINVAL, "give a new name or a new uuid, not both")
	case r.NewUUID != "":
		err = d.SetUUID(r.NewUUID)
	default:
		err = d.Rename(r.NewName)
	}
	if err != nil {
		return ctl.Device{}, err
	}
	return s.changed(d)
}

// message saves afterwards: @cancel_deferred_remove changes what is saved.
func (s *Server) message(_ context.Context, r ctl.Message) (ctl.Reply, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return ctl.Reply{}, err
	}
	before := d.Status().DeferredRemove
	text, err := d.Message(r.Sector, r.Text)
	if err == nil && before != d.Status().DeferredRemove {
		_, err = s.changed(d)
	}
	return ctl.Reply{Text: text}, err
}

func (s *Server) wait(ctx context.Context, r ctl.Wait) (ctl.Device, error) {
	d, err := s.find(r.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	if err := d.Wait(ctx, r.Event); err != nil {
		return ctl.Device{}, err
	}
	// A removal is an event as well.
	if now, err := s.control.Number(d.Number()); err != nil || now != d {
		return summary(d.Status()), nil
	}
	return s.describe(d, ctl.Query{}), nil
}
