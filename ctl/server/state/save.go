package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"udm/dm"
	"udm/env"
)

// written is what the file of a minor number contains, or may contain after writing
// it failed.
type written struct {
	dev   *dm.Device
	names []string // and uuids, see claims
}

// Save saves the actual state of a device: it replaces its file, or deletes it if the
// device is gone. Retry repeats what fails.
func (s *State) Save(d *dm.Device) error {
	err := s.saveAfter(d, nil)
	s.mu.Lock()
	if e := s.entries[d.Number().Minor]; e != nil && e.dev == d {
		e.unsaved = err != nil
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s was changed, but the change cannot be saved: %w", d.Name(), err)
	}
	return nil
}

// Change applies what a command is about to change to the record of a device.
type Change func(*record)

// Suspending is the change of a suspend.
func Suspending() Change { return func(r *record) { r.Suspended = true } }

// Loading is the change of a load, into the inactive slot or live at once.
func (s *State) Loading(specs []dm.Spec, mode dm.Mode, live bool) Change {
	return func(r *record) {
		if len(specs) == 0 {
			return
		}
		if t := s.newTable(specs, mode); live {
			r.Live = t
		} else {
			r.Inactive = t
		}
	}
}

// Marking is the change of a deferred removal.
func Marking() Change { return func(r *record) { r.DeferredRemove = true } }

// Naming is the change of a rename.
func Naming(name string) Change { return func(r *record) { r.Name = name } }

// Identifying is the change of a uuid.
func Identifying(uuid string) Change { return func(r *record) { r.UUID = uuid } }

// Prepare reserves space for a change before it is made. If it fails, the change must
// not be made. Save must follow in either case.
func (s *State) Prepare(d *dm.Device, change Change) error {
	lock := s.lockOf(d)
	lock.Lock()
	defer lock.Unlock()
	e := s.entry(d)
	r := s.record(e)
	change(r)
	if err := s.prepare(e, r); err != nil {
		return fmt.Errorf("%s was not changed because the change cannot be saved: %w", d.Name(), err)
	}
	return nil
}

// prepare writes the new content of a file beside it, unless it is written already.
// Called with the device's saving lock held.
func (s *State) prepare(e *entry, r *record) error {
	if text(r) == e.prepared {
		return nil
	}
	e.prepared = ""
	if err := s.store.prepare(r); err != nil {
		s.store.discard(r.Minor)
		return err
	}
	e.prepared = text(r)
	return nil
}

// discard drops the prepared content of a change that was not made. Called with the
// device's saving lock held.
func (s *State) discard(e *entry, minor uint32) {
	if e.prepared != "" {
		s.store.discard(minor)
		e.prepared = ""
	}
}

// text is a record in one line, for comparison.
func text(r *record) string {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // it consists of strings, numbers and bools
	}
	return string(line)
}

// Erase deletes the file of a device that is about to be removed. Save must follow.
// If Erase fails, the device must not be removed, and Retry saves it again.
func (s *State) Erase(d *dm.Device) error {
	lock := s.lockOf(d)
	lock.Lock()
	defer lock.Unlock()
	e := s.entry(d)
	e.saved = ""
	if err := s.erase(d); err != nil {
		s.mu.Lock()
		e.unsaved = true // the file may be gone, or go in a power cut
		s.mu.Unlock()
		return fmt.Errorf("%s was not removed because the removal cannot be saved: %w", d.Name(), err)
	}
	return nil
}

func (s *State) lockOf(d *dm.Device) *env.Mutex {
	return s.saving[d.Number().Minor%uint32(len(s.saving))]
}

// saveAfter saves a device, after the devices whose files still have its name.
// waiting are the devices that wait for this one.
func (s *State) saveAfter(d *dm.Device, waiting []*dm.Device) error {
	for {
		other, err := s.saveOnce(d)
		if other == nil {
			return err
		}
		waiting = append(slices.Clip(waiting), d)
		if slices.Contains(waiting, other) {
			return errors.New("an earlier save failed; this name is still saved for a device that waits to be saved")
		}
		if err := s.saveAfter(other, waiting); err != nil {
			return err
		}
	}
}

// saveOnce saves a device, or returns the device that must be saved before.
func (s *State) saveOnce(d *dm.Device) (other *dm.Device, err error) {
	lock := s.lockOf(d)
	lock.Lock()
	defer lock.Unlock()
	if now, gone := s.control.Number(d.Number()); gone != nil || now != d {
		return nil, s.forget(d)
	}
	e := s.entry(d)
	r := s.record(e)
	if text(r) == e.saved {
		s.discard(e, r.Minor)
		return nil, nil
	}
	if other := s.claim(d, r); other != nil {
		return other, nil
	}
	if err := s.prepare(e, r); err != nil {
		return nil, err
	}
	e.saved, e.prepared = "", ""
	if err := s.store.commit(r.Minor); err != nil {
		return nil, err
	}
	e.saved = text(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unclaimLocked(r.Minor, claims(r))
	return nil, nil
}

// claims returns the names that only one file may have.
func claims(r *record) []string {
	if r.UUID == "" {
		return []string{"name " + r.Name}
	}
	return []string{"name " + r.Name, "uuid " + r.UUID}
}

// claim records that the file of d is about to have the names of r, or returns the
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

// unclaimLocked records that the file of a minor number has no names except keep.
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

// forget drops what is known about a removed device, and its file unless that belongs
// to another device already. Called with the device's saving lock held.
func (s *State) forget(d *dm.Device) error {
	if err := s.erase(d); err != nil {
		return err
	}
	minor := d.Number().Minor
	s.mu.Lock()
	e := s.entries[minor]
	mine := e != nil && e.dev == d
	if mine {
		delete(s.entries, minor)
	}
	s.mu.Unlock()
	if mine {
		s.discard(e, minor)
	}
	return nil
}

// erase deletes the file of a device unless it belongs to another device already.
func (s *State) erase(d *dm.Device) error {
	minor := d.Number().Minor
	s.mu.Lock()
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
