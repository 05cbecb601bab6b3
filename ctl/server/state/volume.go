package state

import (
	"udm/dm"
	"udm/volume"
)

// next is the announced state of a device.
type next struct {
	live   *table
	volume volume.Record
}

// Record returns the volume manager's record of a device.
func (s *State) Record(d *dm.Device) volume.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.entryLocked(d).volume
}

// SetRecord changes the record. Prepare or Save must follow.
func (s *State) SetRecord(d *dm.Device, r volume.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entryLocked(d).volume = r
}

// Arrived is called when the announced state has been applied.
func (s *State) Arrived(d *dm.Device) {
	s.mu.Lock()
	if e := s.entryLocked(d); e.next != nil {
		e.volume, e.next = e.next.volume, nil
	}
	s.mu.Unlock()
	s.Resumed(d)
}

// Withdraw is called when the announced state was not applied. It saves the actual
// state.
func (s *State) Withdraw(d *dm.Device) error {
	s.setNext(d, nil)
	return s.Save(d)
}

func (s *State) setNext(d *dm.Device, n *next) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entryLocked(d).next = n
}

// Lasting gives a table of the volume manager lasting names. Unlike a user's table,
// it may name devices that get their first table at the same time.
func (s *State) Lasting(specs []dm.Spec) []dm.Spec {
	return s.lasting(specs, func(name string) string {
		if d := s.control.Mapped(name); d != nil {
			return d.Number().String()
		}
		return s.lastingName(name)
	})
}

// IsLive reports whether a table returned by Lasting is live in a device.
func (s *State) IsLive(d *dm.Device, specs []dm.Spec, mode dm.Mode) bool {
	now, nowMode, ok := d.Loaded(false)
	return ok && nowMode == mode && dm.FormatTable(s.Lasting(now)) == dm.FormatTable(specs)
}
