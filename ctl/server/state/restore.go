package state

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"udm/dm"
)

// Restore creates every saved device and loads every table that can be loaded. It
// must be called once, before anything else. The error names saved state that cannot
// be read; everything else runs.
func (s *State) Restore(ctx context.Context) error {
	err := errors.Join(s.restoreDisks(), s.saveFormat())
	records, cerr := s.create()
	err = errors.Join(err, cerr)
	s.bringAllBack(ctx)
	for _, r := range records {
		err = errors.Join(err, s.removeMarked(r.Minor))
	}
	return err
}

// create creates every saved device, without its tables.
func (s *State) create() (records []*record, err error) {
	records, err = s.store.read()
	slices.SortFunc(records, markedLast)
	s.mu.Lock()
	s.total = len(records)
	s.mu.Unlock()
	for _, r := range records {
		d, cerr := s.control.Create(r.Name, r.UUID, int(r.Minor))
		if cerr != nil && r.DeferredRemove {
			err = errors.Join(err, s.store.remove([]uint32{r.Minor}))
			continue
		}
		if cerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.store.path(r.Minor), cerr))
			continue
		}
		s.claim(d, r)
		e := s.entry(d)
		s.mu.Lock()
		e.waiting, e.disk, e.volume, e.limit = r, r.Live != nil || r.Inactive != nil, r.Volume, r.Limit
		s.marked[r.Minor] = r.DeferredRemove
		s.mu.Unlock()
	}
	return records, err
}

// removeMarked marks a device again that was saved with a deferred removal.
func (s *State) removeMarked(minor uint32) error {
	s.mu.Lock()
	marked := s.marked[minor]
	s.mu.Unlock()
	d, err := s.control.Number(dm.Number{Major: dm.Major, Minor: minor})
	if err != nil || !marked {
		return nil
	}
	_, err = d.Remove(true)
	return errors.Join(err, s.Save(d))
}

// Progress returns how many of the saved devices Restore has restored.
func (s *State) Progress() (done, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.waiting == nil {
			done++
		}
	}
	return min(done, s.total), s.total
}

// markedLast sorts devices with a deferred removal last: they may have been removed
// already, and their names given to others.
func markedLast(a, b *record) int {
	if a.DeferredRemove != b.DeferredRemove {
		if a.DeferredRemove {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.Minor, b.Minor)
}

// Retry loads waiting tables, saves what could not be saved, and forgets devices that
// were removed by a deferred removal.
func (s *State) Retry(ctx context.Context) {
	s.bringAllBack(ctx)
	s.saveAgain()
}

// bringAllBack loads waiting tables, lower devices first, until a round loads none or
// ctx ends. Then it suspends the devices that were suspended. That comes last because
// a target may read its metadata when its table is loaded, and must not wait for a
// suspended device below.
func (s *State) bringAllBack(ctx context.Context) {
	for progress := true; progress; {
		progress = false
		es := s.waitingEntries()
		of := s.snapshotsAmong(es)
		for _, e := range es {
			if ctx.Err() != nil {
				return
			}
			if s.bringBack(ctx, e, of) {
				progress = true
			}
		}
	}
	for _, e := range s.waitingEntries() {
		s.suspendAgain(ctx, e)
	}
}

func (s *State) waitingEntries() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	var es []*entry
	for minor, e := range s.entries {
		if e.waiting != nil && !s.away[minor] {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *entry) int { return cmp.Compare(a.dev.Number().Minor, b.dev.Number().Minor) })
	return es
}

// bringBack loads what it can of the tables of one device and reports whether it
// loaded any.
func (s *State) bringBack(ctx context.Context, e *entry, of waitingSnapshots) (progress bool) {
	s.mu.Lock()
	w := e.waiting
	s.mu.Unlock()
	if w == nil {
		return false
	}
	st := e.dev.Status()
	var err error
	if w.Live != nil && !st.Live {
		if st.Inactive {
			w = s.keepInactive(e, w) // the live table needs the inactive slot
		}
		if err = s.loadSaved(e.dev, w.Live, of); err == nil {
			err = e.dev.Resume(ctx, false)
		}
		progress = err == nil
	}
	if err == nil && w.Inactive != nil && !e.dev.Status().Inactive {
		err = s.loadSaved(e.dev, w.Inactive, of)
		progress = progress || err == nil
	}
	s.settle(e, w, err)
	return progress
}

// keepInactive makes an inactive table that was loaded meanwhile part of what the
// device waits for.
func (s *State) keepInactive(e *entry, w *record) *record {
	r := *w
	r.Inactive = s.loaded(e.dev, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.waiting == w {
		e.waiting = &r
	}
	return &r
}

// settle records why a device still waits. If it does not, it may still have to be
// suspended.
func (s *State) settle(e *entry, w *record, err error) {
	s.mu.Lock()
	before := e.reason
	e.reason = ""
	switch {
	case err != nil:
		e.reason = err.Error()
	case !w.Suspended && e.waiting == w:
		e.waiting = nil
	}
	s.mu.Unlock()
	s.tell(e.dev, before, err)
}

// tell logs a change of what a device waits for.
func (s *State) tell(d *dm.Device, before string, err error) {
	switch {
	case err != nil && err.Error() != before:
		s.log.Warn("cannot load a saved table yet", "device", d.Name(), "reason", err)
	case err == nil && before != "":
		s.log.Info("loaded a saved table", "device", d.Name())
	}
}

// loadSaved loads a saved table, unless a mapped device that it names is not ready.
func (s *State) loadSaved(d *dm.Device, t *table, of waitingSnapshots) error {
	text := t.Text
	switch {
	case t.keyed != nil:
		text = t.keyed
	case t.Keyless:
		return fmt.Errorf("waiting for its key, which is not saved; load the table again with the key and resume %s", d.Name())
	}
	specs, err := s.Parse(strings.Join(text, "\n"))
	if err != nil {
		return err
	}
	for _, name := range s.devices(specs, dm.Plain, dm.Snapshotted, dm.Origin) {
		if under := s.control.Mapped(name); under != nil && under != d {
			if why := s.notReady(under); why != "" {
				return fmt.Errorf("waiting for the device %s, %s", under.Name(), why)
			}
		}
	}
	if name := s.missingSnapshot(d, specs, of); name != "" {
		return fmt.Errorf("waiting for its snapshot %s, whose table is not loaded; remove the snapshot to continue without it", name)
	}
	return d.Load(specs, dm.Mode{Write: !t.ReadOnly})
}

// missingSnapshot returns the name of a snapshot that is missing although its origin
// is about to be restored: writes to the origin would change the snapshot's content.
func (s *State) missingSnapshot(d *dm.Device, specs []dm.Spec, of waitingSnapshots) string {
	for _, origin := range s.devices(specs, dm.Origin) {
		for _, e := range of[origin] {
			if e.dev != d && !e.dev.Status().Live && s.waits(e) {
				return e.dev.Name()
			}
		}
	}
	return ""
}

// waitingSnapshots are devices whose saved tables, which wait, have snapshots, by origin.
type waitingSnapshots map[string][]*entry

// snapshotsAmong finds them. Their tables are read once for all origins.
func (s *State) snapshotsAmong(es []*entry) waitingSnapshots {
	of := make(waitingSnapshots)
	for _, e := range es {
		s.mu.Lock()
		w := e.waiting
		s.mu.Unlock()
		if w == nil || w.Live == nil {
			continue
		}
		specs, _ := s.Parse(strings.Join(w.Live.Text, "\n"))
		for _, origin := range s.devices(specs, dm.Snapshotted) {
			of[origin] = append(of[origin], e)
		}
	}
	return of
}

// waits reports whether a live table of a device waits.
func (s *State) waits(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.waiting != nil && e.waiting.Live != nil
}

// notReady says why a device cannot be used by others yet: its saved table is
// missing, or it or a device below it is suspended, so that a read would never end.
func (s *State) notReady(d *dm.Device) string {
	st := d.Status()
	s.mu.Lock()
	w := s.entryLocked(d).waiting
	s.mu.Unlock()
	switch {
	case w != nil && w.Live != nil && !st.Live:
		return "whose table is missing"
	case st.Suspended:
		return "which is suspended"
	}
	for _, n := range d.Deps(false) {
		if under, err := s.control.Number(n); err == nil && under != d {
			if why := s.notReady(under); why != "" {
				return why
			}
		}
	}
	return ""
}

// suspendAgain suspends a device that was suspended and has its tables. Devices on
// top of it come first, because their suspend may write to it.
func (s *State) suspendAgain(ctx context.Context, e *entry) {
	s.mu.Lock()
	w := e.waiting
	if w == nil || e.reason != "" {
		s.mu.Unlock()
		return
	}
	e.waiting = nil
	s.mu.Unlock()
	for _, other := range s.waitingEntries() {
		if slices.Contains(other.dev.Deps(false), e.dev.Number()) {
			s.suspendAgain(ctx, other)
		}
	}
	if err := e.dev.Suspend(ctx, true); err != nil {
		s.log.Error("cannot suspend a device again", "device", e.dev.Name(), "reason", err)
	}
}

// Cleared is called when the inactive table of a device was cleared. A waiting
// inactive table is dropped, too.
func (s *State) Cleared(d *dm.Device) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entryLocked(d)
	switch w := e.waiting; {
	case w == nil:
	case w.Live == nil:
		e.waiting, e.reason = nil, ""
	default:
		rest := *w
		rest.Inactive = nil
		e.waiting = &rest
	}
}

// Resumed is called when a device was resumed. If it has a live table, it no longer
// waits for a saved one.
func (s *State) Resumed(d *dm.Device) {
	if !d.Status().Live {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entryLocked(d)
	e.waiting, e.reason = nil, ""
}
