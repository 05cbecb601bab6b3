package server

import (
	"cmp"
	"slices"

	"udm/blk"
	"udm/dm"
)

// keeper is what the server knows about a device beside the device mapper.
type keeper struct {
	dev *dm.Device

	disk    bool    // guarded by Server.mu; a table was loaded once
	waiting *record // guarded by Server.mu; saved tables that could not be loaded yet
	reason  string  // guarded by Server.mu; why
}

// keeper returns the keeper of a device, a fresh one when the minor number has
// gone to another device.
func (s *Server) keeper(d *dm.Device) *keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeperLocked(d)
}

func (s *Server) keeperLocked(d *dm.Device) *keeper {
	k := s.keepers[d.Number().Minor]
	if k == nil || k.dev != d {
		k = &keeper{dev: d}
		s.keepers[d.Number().Minor] = k
	}
	return k
}

// sweep forgets devices that have gone by themselves: those that were marked for
// removal and then closed.
func (s *Server) sweep() {
	s.mu.Lock()
	var gone []*dm.Device
	for _, k := range s.keepers {
		if now, err := s.control.Number(k.dev.Number()); err != nil || now != k.dev {
			gone = append(gone, k.dev)
		}
	}
	s.mu.Unlock()
	for _, d := range gone {
		if err := s.save(d); err != nil {
			s.log.Warn("the saved state of a removed device stays", "reason", err)
		}
	}
}

// record describes a device for the store. Tables that still wait stand in for
// the ones that the device lacks.
func (s *Server) record(k *keeper) *record {
	st := k.dev.Status()
	r := &record{Minor: st.Number.Minor, Name: st.Name, UUID: st.UUID, Suspended: st.Suspended,
		DeferredRemove: st.DeferredRemove, Live: loaded(k.dev, false), Inactive: loaded(k.dev, true)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := k.waiting; w != nil {
		r.Suspended = r.Suspended || w.Suspended
		if r.Live == nil {
			r.Live = w.Live
		}
		if r.Inactive == nil {
			r.Inactive = w.Inactive
		}
	}
	return r
}

func loaded(d *dm.Device, inactive bool) *table {
	specs, mode, ok := d.Loaded(inactive)
	if !ok {
		return nil
	}
	t := &table{ReadOnly: !mode.Write}
	for _, sp := range specs {
		t.Text = append(t.Text, sp.String())
	}
	return t
}

// parse reads the text of a table and gives devices the names that last. A line
// that its target refuses stays as it is: the load says why.
func (s *Server) parse(text string) ([]dm.Spec, error) {
	specs, err := dm.ParseTable(text)
	for i, sp := range specs {
		l, err := s.control.ParseLine(sp)
		if err == nil && s.lasting(l) {
			specs[i].Params = l.String()
		}
	}
	return specs, err
}

// lasting gives the devices of a line names that still mean them after a rename or
// a restart, and reports whether any had another one.
func (s *Server) lasting(l dm.Line) (changed bool) {
	for _, w := range l.Devices() {
		name := s.lastingName(*w.Name)
		changed = changed || name != *w.Name
		*w.Name = name
	}
	return changed
}

func (s *Server) lastingName(name string) string {
	if d := s.control.Mapped(name); d != nil {
		// One without a table cannot be opened, and the errno tells a path
		// from a number.
		if st := d.Status(); st.Live || st.Inactive {
			return st.Number.String()
		}
	} else if n, ok := blk.ParseNumber(name); ok && n.Major != dm.Major {
		return cmp.Or(s.opener.Name(n), name)
	}
	return name
}

// devices are the names in the lines of a table that are devices with a role, as
// far as the lines can be understood.
func (s *Server) devices(specs []dm.Spec, roles ...dm.Role) (names []string) {
	for _, sp := range specs {
		l, err := s.control.ParseLine(sp)
		if err != nil {
			continue
		}
		for _, w := range l.Devices() {
			if slices.Contains(roles, w.Role) {
				names = append(names, *w.Name)
			}
		}
	}
	return names
}
