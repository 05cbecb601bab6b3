package service

import (
	"context"
	"os"
	"slices"
	"strings"
	"syscall"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
)

// Version implements [ctl.Service].
func (s *Service) Version(context.Context) (ctl.Version, error) {
	v := ctl.Version{Program: s.program, Driver: ctl.Driver, PID: os.Getpid()}
	if !s.restored.Load() {
		done, total := s.state.Progress()
		v.Restoring = &ctl.Progress{Done: done, Total: total}
	}
	return v, nil
}

// Targets implements [ctl.Service].
func (s *Service) Targets(context.Context) ([]ctl.Target, error) {
	ts := make([]ctl.Target, 0)
	for _, t := range s.control.Types() {
		ts = append(ts, ctl.Target{Name: t.Name, Version: t.Version, Doc: t.Doc})
	}
	return ts, nil
}

// List implements [ctl.Service].
func (s *Service) List(_ context.Context, q ctl.Query) ([]ctl.Device, error) {
	ds := make([]ctl.Device, 0)
	for _, d := range s.control.List() {
		if desc := s.describe(d, q); strings.HasPrefix(desc.Name, q.Name) {
			ds = append(ds, desc)
		}
	}
	return ds, nil
}

// Device implements [ctl.Service].
func (s *Service) Device(_ context.Context, q ctl.Query) (ctl.Device, error) {
	d, err := s.find(q.Ref)
	if err != nil {
		return ctl.Device{}, err
	}
	return s.describe(d, q), nil
}

// find looks up a device as the kernel does: by uuid, else name, else number.
func (s *Service) find(r ctl.Ref) (*dm.Device, error) {
	switch {
	case r.UUID != "" && (r.Name != "" || r.Number != nil), r.Name != "" && r.Number != nil:
		return nil, dm.Errorf(syscall.EINVAL, "give only one of name, uuid and number")
	case r.UUID != "":
		return named(s.control.UUID(r.UUID))("no device has the uuid " + r.UUID)
	case r.Name != "":
		return named(s.control.Name(r.Name))("no device is named " + r.Name)
	case r.Number != nil:
		return named(s.control.Number(dm.Number(*r.Number)))("no device has the number " + r.Number.String())
	}
	return nil, dm.Errorf(syscall.ENXIO, "give the name, uuid or number of a device")
}

// named replaces the error of a failed search by a reason.
func named(d *dm.Device, err error) func(reason string) (*dm.Device, error) {
	return func(reason string) (*dm.Device, error) {
		if err != nil {
			return nil, dm.Errorf(syscall.ENXIO, "%s", reason)
		}
		return d, nil
	}
}

// describe returns the parts of a device's description that a query asks for.
func (s *Service) describe(d *dm.Device, q ctl.Query) ctl.Device {
	st := d.Status()
	out := summary(st)
	for who, n := range st.Holders {
		if out.Holders == nil {
			out.Holders = make(map[string]int, len(st.Holders))
		}
		out.Holders[string(who)] = n
	}
	told := s.state.Tell(d, st)
	out.Disk, out.Waiting = told.Disk, told.Waiting
	if q.Inactive {
		specs, mode, ok := d.Loaded(true)
		out.Targets, out.ReadOnly = len(specs), ok && !mode.Write
	}
	s.details(d, q, &out)
	return out
}

// summary is a device's own description, also valid after its removal.
func summary(st dm.Status) ctl.Device {
	return ctl.Device{
		Number: ctl.Number(st.Number), Name: st.Name, UUID: st.UUID,
		Suspended: st.Suspended, InternallySuspended: st.InternallySuspended,
		ReadOnly: st.ReadOnly, DeferredRemove: st.DeferredRemove,
		Live: st.Live, Inactive: st.Inactive,
		Targets: st.Targets, Opens: st.Opens, Event: st.EventNr, Sectors: st.Sectors,
	}
}

func (s *Service) details(d *dm.Device, q ctl.Query, out *ctl.Device) {
	var flags dm.StatusFlags
	if q.Noflush {
		flags = dm.StatusNoflush
	}
	if slices.Contains(q.With, ctl.WithTable) {
		out.Table = lines(s.shown(d.Lines(dm.TableText, q.Inactive, flags), q.Keys))
	}
	if slices.Contains(q.With, ctl.WithStatus) {
		out.Status = lines(d.Lines(dm.Info, q.Inactive, flags))
	}
	if slices.Contains(q.With, ctl.WithDeps) {
		for _, n := range d.Deps(q.Inactive) {
			out.Deps = append(out.Deps, s.dep(n))
		}
	}
	if slices.Contains(q.With, ctl.WithQueue) {
		out.Queue = queueOf(d.Limits())
	}
}

func queueOf(l blk.Limits) *ctl.Queue {
	return &ctl.Queue{
		LogicalBlock: l.LogicalBlock, PhysicalBlock: l.PhysicalBlock, MinIO: l.MinIO, OptIO: l.OptIO,
		DiscardGranularity: l.DiscardGranularity, MaxDiscard: l.MaxDiscard * blk.SectorSize,
		MaxWriteZeroes: l.MaxWriteZeroes * blk.SectorSize, Rotational: l.Rotational,
	}
}

// shown is a table as shown to a client.
func (s *Service) shown(specs []dm.Spec, keys bool) []dm.Spec {
	if keys {
		return specs
	}
	hidden, _ := s.control.WithoutKeys(specs)
	return hidden
}

func (s *Service) dep(n dm.Number) ctl.Dep {
	dep := ctl.Dep{Number: ctl.Number(n), Name: blockName(n), Source: s.opener.Name(n)}
	if d, err := s.control.Number(n); err == nil {
		dep.Map = d.Name()
	} else if r, ok := s.opener.Report(n); ok {
		dep.Report = &r
	}
	return dep
}

func lines(specs []dm.Spec) []ctl.Line {
	var ls []ctl.Line
	for _, sp := range specs {
		ls = append(ls, ctl.Line{Start: sp.Start, Length: sp.Len, Target: sp.Type, Params: sp.Params})
	}
	return ls
}
