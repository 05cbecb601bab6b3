package state

import (
	"fmt"

	"udm/dm"
	"udm/volume"
)

// next is what a device is about to be.
type next struct {
	live   *table
	volume volume.Record
}

// Record is what the volume manager keeps with a device.
func (s *State) Record(d *dm.Device) volume.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entryLocked(d).volume
}

// SetRecord changes it. Prepare or Save follows.
func (s *State) SetRecord(d *dm.Device, r volume.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entryLocked(d).volume = r
}

// Announce saves what a device is about to be: from then on a restart makes it
// that. Arrived follows, or Withdraw. A device without specs keeps its table.
func (s *State) Announce(d *dm.Device, specs []dm.Spec, mode dm.Mode, r volume.Record) error {
	n := &next{s.loaded(d, false), r}
	if len(specs) > 0 {
		n.live = s.newTable(specs, mode)
	}
	s.setNext(d, n)
	if err := s.saveAfter(d, nil); err != nil {
		return fmt.Errorf("%s was not changed, because the change cannot be saved: %w", d.Name(), err)
	}
	return nil
}

// Arrived tells that a device is what was announced.
func (s *State) Arrived(d *dm.Device) {
	s.mu.Lock()
	if e := s.entryLocked(d); e.next != nil {
		e.volume, e.next = e.next.volume, nil
	}
	s.mu.Unlock()
	s.Resumed(d)
}

// Withdraw tells that a device did not become what was announced, and saves what
// it is.
func (s *State) Withdraw(d *dm.Device) error {
	s.setNext(d, nil)
	return s.Save(d)
}

func (s *State) setNext(d *dm.Device, n *next) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entryLocked(d).next = n
}

// Lasting is a table of the volume manager with names that last. Unlike those of a
// user, its devices may get their first tables together with the one that names
// them.
func (s *State) Lasting(specs []dm.Spec) []dm.Spec {
	return s.lasting(specs, func(name string) string {
		if d := s.control.Mapped(name); d != nil {
			return d.Number().String()
		}
		return s.lastingName(name)
	})
}

// IsLive reports whether a device has a table, which Lasting has returned, live.
func (s *State) IsLive(d *dm.Device, specs []dm.Spec, mode dm.Mode) bool {
	now, nowMode, ok := d.Loaded(false)
	return ok && nowMode == mode && dm.FormatTable(s.Lasting(now)) == dm.FormatTable(specs)
}
