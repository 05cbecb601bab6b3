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

// Resuming is the change of a resume, which makes the inactive table live.
func Resuming() Change {
	return func(r *record) {
		r.Suspended = false
		if r.Inactive != nil {
			r.Live, r.Inactive = r.Inactive, nil
		}
	}
}

// Clearing is the change of a clear of the inactive table.
func Clearing() Change { return func(r *record) { r.Inactive = nil } }

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
	if err := s.PrepareAll([]*dm.Device{d}, []Change{change}); err != nil {
		return fmt.Errorf("%s was not changed because the change cannot be saved: %w", d.Name(), err)
	}
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
	if err := s.EraseAll([]*dm.Device{d}); err != nil {
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
	if s.isGone(d) {
		return nil, s.forget(d)
	}
	u, other := s.updateOf(d)
	if u == nil {
		return other, nil
	}
	return nil, s.replace([]update{*u})
}

func (s *State) isGone(d *dm.Device) bool {
	now, err := s.control.Number(d.Number())
	return err != nil || now != d
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
	if err := s.erase([]*dm.Device{d}); err != nil {
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

// erase deletes the files of devices, except those that belong to other devices
// already. Called with the devices' saving locks held.
func (s *State) erase(ds []*dm.Device) error {
	var minors []uint32
	s.mu.Lock()
	for _, d := range ds {
		minor := d.Number().Minor
		if w := s.written[minor]; w != nil && w.dev == d {
			minors = append(minors, minor)
		}
	}
	s.mu.Unlock()
	if len(minors) == 0 {
		return nil
	}
	if err := s.store.remove(minors); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, minor := range minors {
		s.unclaimLocked(minor, nil)
	}
	return nil
}
