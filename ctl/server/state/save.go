package state

import (
	"errors"
	"fmt"
	"slices"

	"udm/dm"
)

// written is what the file of a minor number says, or may say since writing it
// failed.
type written struct {
	dev   *dm.Device
	names []string // and uuids, see claims
}

// Save makes the saved state of a device say what is true: its file is
// replaced, or deleted if the device is gone.
func (s *State) Save(d *dm.Device) error {
	if err := s.saveAfter(d, nil); err != nil {
		return fmt.Errorf("%s was changed, but the change could not be saved: %w", d.Name(), err)
	}
	return nil
}

// saveAfter saves a device, and before it those whose files still have its name,
// for which the devices of waiting wait.
func (s *State) saveAfter(d *dm.Device, waiting []*dm.Device) error {
	for {
		other, err := s.saveOnce(d)
		if other == nil {
			return err
		}
		waiting = append(slices.Clip(waiting), d)
		if slices.Contains(waiting, other) {
			return errors.New("saving failed before, and the name is in the file of a device that waits for this one's")
		}
		if err := s.saveAfter(other, waiting); err != nil {
			return err
		}
	}
}

// saveOnce saves a device unless it has to be another's turn first.
func (s *State) saveOnce(d *dm.Device) (other *dm.Device, err error) {
	lock := s.saving[d.Number().Minor%uint32(len(s.saving))]
	lock.Lock()
	defer lock.Unlock()
	if now, gone := s.control.Number(d.Number()); gone != nil || now != d {
		return nil, s.forget(d)
	}
	r := s.record(s.entry(d))
	if other := s.claim(d, r); other != nil {
		return other, nil
	}
	if err := s.store.write(r); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclaimLocked(r.Minor, claims(r))
	return nil, nil
}

// claims are the names that only one file may have.
func claims(r *record) []string {
	if r.UUID == "" {
		return []string{"name " + r.Name}
	}
	return []string{"name " + r.Name, "uuid " + r.UUID}
}

// claim notes that the file of d is about to have the names of r, or returns the
// device whose file has one of them.
func (s *State) claim(d *dm.Device, r *record) (other *dm.Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := claims(r)
	for _, n := range names {
		if minor, taken := s.claimed[n]; taken && minor != r.Minor {
			return s.written[minor].dev
		}
	}
	w := s.written[r.Minor]
	if w == nil {
		w = new(written)
		s.written[r.Minor] = w
	}
	w.dev = d
	for _, n := range names {
		if s.claimed[n] = r.Minor; !slices.Contains(w.names, n) {
			w.names = append(w.names, n)
		}
	}
	return nil
}

// unclaimLocked notes that the file of a minor number has no names but keep.
func (s *State) unclaimLocked(minor uint32, keep []string) {
	w := s.written[minor]
	for _, n := range w.names {
		if !slices.Contains(keep, n) {
			delete(s.claimed, n)
		}
	}
	if w.names = keep; len(keep) == 0 {
		delete(s.written, minor)
	}
}

// forget drops what is known about a removed device, and its file unless that is
// another's already.
func (s *State) forget(d *dm.Device) error {
	minor := d.Number().Minor
	s.mu.Lock()
	if e := s.entries[minor]; e != nil && e.dev == d {
		delete(s.entries, minor)
	}
	w := s.written[minor]
	s.mu.Unlock()
	if w == nil || w.dev != d {
		return nil
	}
	if err := s.store.remove(minor); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclaimLocked(minor, nil)
	return nil
}
