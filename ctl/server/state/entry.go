package state

import (
	"cmp"
	"slices"

	"udm/blk"
	"udm/dm"
	"udm/volume"
)

// entry is the state of a device that the device mapper does not have.
type entry struct {
	dev *dm.Device

	saved    string // guarded by State.saving; content of MINOR.json, "" if unknown
	prepared string // guarded by State.saving; content of MINOR.json.new, "" if unknown
	unsaved  bool   // guarded by State.mu; saving failed

	disk    bool    // guarded by State.mu; a table has been loaded
	waiting *record // guarded by State.mu; saved tables that could not be loaded yet
	reason  string  // guarded by State.mu; why they could not be loaded

	limit  Limit         // guarded by State.mu
	volume volume.Record // guarded by State.mu; the volume manager's record
	next   *next         // guarded by State.mu; saved state that is not in force yet
}

// entry returns the entry of a device, a new one if the minor number now belongs to
// another device.
func (s *State) entry(d *dm.Device) *entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entryLocked(d)
}

func (s *State) entryLocked(d *dm.Device) *entry {
	e := s.entries[d.Number().Minor]
	if e == nil || e.dev != d {
		e = &entry{dev: d}
		s.entries[d.Number().Minor] = e
	}
	return e
}

// saveAgain saves devices that could not be saved, and forgets devices that were
// removed by a deferred removal.
func (s *State) saveAgain() {
	s.mu.Lock()
	var due []*dm.Device
	for _, e := range s.entries {
		if now, err := s.control.Number(e.dev.Number()); e.unsaved || err != nil || now != e.dev {
			due = append(due, e.dev)
		}
	}
	s.mu.Unlock()
	for _, d := range due {
		if err := s.Save(d); err != nil {
			s.log.Warn("still cannot save a device", "device", d.Name(), "reason", err)
		}
	}
}

// record describes a device for the store. Waiting tables are used for tables that
// the device lacks.
func (s *State) record(e *entry) *record {
	st := e.dev.Status()
	r := &record{Minor: st.Number.Minor, Name: st.Name, UUID: st.UUID, Suspended: st.Suspended,
		DeferredRemove: st.DeferredRemove, Live: s.loaded(e.dev, false), Inactive: s.loaded(e.dev, true)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := e.waiting; w != nil {
		r.Suspended = r.Suspended || w.Suspended
		if r.Live == nil {
			r.Live = w.Live
		}
		if r.Inactive == nil {
			r.Inactive = w.Inactive
		}
	}
	r.Volume, r.Limit = e.volume, e.limit
	if n := e.next; n != nil {
		r.Live, r.Volume = n.live, n.volume
	}
	return r
}

func (s *State) loaded(d *dm.Device, inactive bool) *table {
	specs, mode, ok := d.Loaded(inactive)
	if !ok {
		return nil
	}
	return s.newTable(specs, mode)
}

// newTable is a table as it is saved: without its keys.
func (s *State) newTable(specs []dm.Spec, mode dm.Mode) *table {
	hidden, keyed := s.control.WithoutKeys(specs)
	t := &table{ReadOnly: !mode.Write, Keyless: keyed}
	for _, sp := range hidden {
		t.Text = append(t.Text, sp.String())
	}
	return t
}

// Parse parses the text of a table and gives devices lasting names. A line that its
// target cannot parse stays unchanged; loading it returns the error.
func (s *State) Parse(text string) ([]dm.Spec, error) {
	specs, err := dm.ParseTable(text)
	return s.lasting(specs, s.lastingName), err
}

// lasting replaces the devices in a table by names that stay valid after a rename or
// a restart.
func (s *State) lasting(specs []dm.Spec, lastingName func(string) string) []dm.Spec {
	specs = slices.Clone(specs)
	for i, sp := range specs {
		l, err := s.control.ParseLine(sp)
		if err != nil {
			continue
		}
		changed := false
		for _, w := range l.Devices() {
			name := lastingName(*w.Name)
			changed = changed || name != *w.Name
			*w.Name = name
		}
		if changed {
			specs[i].Params = l.String()
		}
	}
	return specs
}

func (s *State) lastingName(name string) string {
	if d := s.control.Mapped(name); d != nil {
		// A device without a table cannot be opened, and the errno for a path differs
		// from that for a number.
		if st := d.Status(); st.Live || st.Inactive {
			return st.Number.String()
		}
	} else if n, ok := blk.ParseNumber(name); ok && n.Major != dm.Major {
		return cmp.Or(s.opener.Name(n), name)
	}
	return name
}

// devices returns the devices of a table that have one of the roles, as far as its
// lines can be parsed.
func (s *State) devices(specs []dm.Spec, roles ...dm.Role) (names []string) {
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

// Told is the part of a device's description that State provides.
type Told struct {
	Disk    bool   // a table has been loaded
	Waiting string // why a saved table could not be loaded yet, or ""
}

// Tell returns it for a device with status st.
func (s *State) Tell(d *dm.Device, st dm.Status) Told {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entryLocked(d)
	e.disk = e.disk || st.Live || st.Inactive
	return Told{e.disk, e.reason}
}

// Waiting returns why a saved table of a device could not be loaded yet, or "".
func (s *State) Waiting(d *dm.Device) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entryLocked(d).reason
}
