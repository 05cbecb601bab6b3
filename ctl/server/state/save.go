package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"udm/dm"
	"udm/env"
)

// written is what the file of a minor number says, or may say since writing it
// failed.
type written struct {
	dev   *dm.Device
	names []string // and uuids, see claims
}

// Save makes the saved state of a device say what is true: its file is
// replaced, or deleted if the device is gone. What fails is tried again by Retry.
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

// Change says what a command is about to change of a device.
type Change func(*record)

// Suspending is a suspend.
func Suspending() Change { return func(r *record) { r.Suspended = true } }

// Loading is a table that comes into the inactive slot, or is live at once.
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

// Marking is a removal that waits for users.
func Marking() Change { return func(r *record) { r.DeferredRemove = true } }

// Naming is another name.
func Naming(name string) Change { return func(r *record) { r.Name = name } }

// Identifying is a uuid.
func Identifying(uuid string) Change { return func(r *record) { r.UUID = uuid } }

// Prepare takes the space for what a change needs, before the change is made: one
// that finds none is not to be made. Save follows in either case.
func (s *State) Prepare(d *dm.Device, change Change) error {
	lock := s.lockOf(d)
	lock.Lock()
	defer lock.Unlock()
	e := s.entry(d)
	r := s.record(e)
	change(r)
	if err := s.prepare(e, r); err != nil {
		return fmt.Errorf("%s was not changed, because the change cannot be saved: %w", d.Name(), err)
	}
	return nil
}

// prepare writes what a file is to say beside it, unless it is there. Called with
// the device's saving lock.
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

// discard drops what was prepared for a change that was not made. Called with the
// device's saving lock.
func (s *State) discard(e *entry, minor uint32) {
	if e.prepared != "" {
		s.store.discard(minor)
		e.prepared = ""
	}
}

// text is a record in one line, to compare.
func text(r *record) string {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // it consists of strings, numbers and bools
	}
	return string(line)
}

// Erase deletes the file of a device that is about to be removed. Save follows; when
// Erase fails, the device is not to be removed, and Retry saves it again.
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
		return fmt.Errorf("%s was not removed, because the removal cannot be saved: %w", d.Name(), err)
	}
	return nil
}

func (s *State) lockOf(d *dm.Device) *env.Mutex {
	return s.saving[d.Number().Minor%uint32(len(s.saving))]
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
			return errors.New("an earlier save failed; this name is still saved for a device that waits to be saved")
		}
		if err := s.saveAfter(other, waiting); err != nil {
			return err
		}
	}
}

// saveOnce saves a device unless it has to be another's turn first.
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
// another's already. Called with the device's saving lock.
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

// erase deletes the file of a device unless it is another's already.
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
