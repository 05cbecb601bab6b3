package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"udm/dm"
)

// retryEvery is how often tables that wait are tried again.
const retryEvery = 5 * time.Second

// Restore makes every saved device and loads every table that can be loaded. It
// runs once, before anything else. The error tells of saved state that cannot be
// read; the rest runs.
func (s *Server) Restore(ctx context.Context) error {
	records, err := s.store.read()
	slices.SortFunc(records, byImportance)
	for _, r := range records {
		d, cerr := s.control.Create(r.Name, r.UUID, int(r.Minor))
		if cerr != nil && r.DeferredRemove {
			err = errors.Join(err, s.store.remove(r.Minor))
			continue
		}
		if cerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.store.path(r.Minor), cerr))
			continue
		}
		s.claim(d, r)
		k := s.keeper(d)
		s.mu.Lock()
		k.waiting, k.disk = r, r.Live != nil || r.Inactive != nil
		s.mu.Unlock()
	}
	s.bringAllBack(ctx)
	for _, r := range records {
		if d, derr := s.control.Number(dm.Number{Major: dm.Major, Minor: r.Minor}); derr == nil && r.DeferredRemove {
			_, rerr := d.Remove(true)
			err = errors.Join(err, rerr, s.save(d))
		}
	}
	return err
}

// byImportance puts devices that were marked for removal last: they may have gone
// by themselves, and their names to others.
func byImportance(a, b *record) int {
	if a.DeferredRemove != b.DeferredRemove {
		if a.DeferredRemove {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.Minor, b.Minor)
}

// KeepTrying tries the tables that wait again and again until ctx ends.
func (s *Server) KeepTrying(ctx context.Context) {
	t := time.NewTicker(retryEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.bringAllBack(ctx)
			s.sweep()
			s.files.retry()
		}
	}
}

// bringAllBack loads the tables that wait, lower devices first, until a round
// loads none. Then it suspends what was suspended: a target may read its
// metadata when its table is loaded, and must not wait for a device below.
func (s *Server) bringAllBack(ctx context.Context) {
	for progress := true; progress; {
		progress = false
		for _, k := range s.waitingKeepers() {
			if s.bringBack(ctx, k) {
				progress = true
			}
		}
	}
	for _, k := range s.waitingKeepers() {
		s.suspendAgain(ctx, k)
	}
}

func (s *Server) waitingKeepers() []*keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ks []*keeper
	for _, k := range s.keepers {
		if k.waiting != nil {
			ks = append(ks, k)
		}
	}
	slices.SortFunc(ks, func(a, b *keeper) int { return cmp.Compare(a.dev.Number().Minor, b.dev.Number().Minor) })
	return ks
}

// bringBack loads what it can of the tables of one device and reports whether it
// loaded any.
func (s *Server) bringBack(ctx context.Context, k *keeper) (progress bool) {
	s.mu.Lock()
	w := k.waiting
	s.mu.Unlock()
	if w == nil {
		return false
	}
	st := k.dev.Status()
	var err error
	if w.Live != nil && !st.Live {
		if st.Inactive {
			w = s.keepInactive(k, w) // the slot is needed for the live table
		}
		if err = s.loadSaved(k.dev, w.Live); err == nil {
			err = k.dev.Resume(ctx, false)
		}
		progress = err == nil
	}
	if err == nil && w.Inactive != nil && !k.dev.Status().Inactive {
		err = s.loadSaved(k.dev, w.Inactive)
		progress = progress || err == nil
	}
	s.settle(k, w, err)
	return progress
}

// keepInactive makes the inactive table that a device was given meanwhile the
// one that it waits for.
func (s *Server) keepInactive(k *keeper, w *record) *record {
	r := *w
	r.Inactive = loaded(k.dev, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	if k.waiting == w {
		k.waiting = &r
	}
	return &r
}

// settle notes why a device still waits, or that it does not: then only its
// suspend may be missing.
func (s *Server) settle(k *keeper, w *record, err error) {
	s.mu.Lock()
	before := k.reason
	k.reason = ""
	switch {
	case err != nil:
		k.reason = err.Error()
	case !w.Suspended && k.waiting == w:
		k.waiting = nil
	}
	s.mu.Unlock()
	s.tell(k.dev, before, err)
}

// tell logs a change of what a device waits for.
func (s *Server) tell(d *dm.Device, before string, err error) {
	switch {
	case err != nil && err.Error() != before:
		s.log.Warn("a saved table cannot be loaded yet", "device", d.Name(), "reason", err)
	case err == nil && before != "":
		s.log.Info("a saved table is back", "device", d.Name())
	}
}

// loadSaved loads a saved table, unless a mapped device that it names is not
// ready yet.
func (s *Server) loadSaved(d *dm.Device, t *table) error {
	specs, err := s.parse(strings.Join(t.Text, "\n"))
	if err != nil {
		return err
	}
	for _, name := range s.devices(specs, dm.Plain, dm.Snapshotted, dm.Origin) {
		if under := s.control.Mapped(name); under != nil && under != d {
			if why := s.notReady(under); why != "" {
				return fmt.Errorf("waits for the device %s, %s", under.Name(), why)
			}
		}
	}
	if name := s.missingSnapshot(d, specs); name != "" {
		return fmt.Errorf("waits for its snapshot %s, whose table is missing; remove that to go on without it", name)
	}
	return d.Load(specs, dm.Mode{Write: !t.ReadOnly})
}

// missingSnapshot is the name of a snapshot that is not there yet although its
// origin is about to be: writes to the origin would change what it shows.
func (s *Server) missingSnapshot(d *dm.Device, specs []dm.Spec) string {
	origins := s.devices(specs, dm.Origin)
	if len(origins) == 0 {
		return ""
	}
	for _, k := range s.waitingKeepers() {
		if k.dev != d && !k.dev.Status().Live && s.isSnapshotOf(k, origins) {
			return k.dev.Name()
		}
	}
	return ""
}

// isSnapshotOf reports whether the saved table of a device that waits is a
// snapshot of one of origins.
func (s *Server) isSnapshotOf(k *keeper, origins []string) bool {
	s.mu.Lock()
	w := k.waiting
	s.mu.Unlock()
	if w == nil || w.Live == nil {
		return false
	}
	specs, _ := s.parse(strings.Join(w.Live.Text, "\n"))
	return slices.ContainsFunc(s.devices(specs, dm.Snapshotted), func(name string) bool { return slices.Contains(origins, name) })
}

// notReady is why a device cannot be stacked on: its saved table is missing, or it
// or what is below it is suspended, so that reading it would never end.
func (s *Server) notReady(d *dm.Device) string {
	st := d.Status()
	s.mu.Lock()
	w := s.keeperLocked(d).waiting
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

// suspendAgain suspends a device that was suspended and has its tables, those
// that stand on it first: a suspend may write to what is below.
func (s *Server) suspendAgain(ctx context.Context, k *keeper) {
	s.mu.Lock()
	w := k.waiting
	if w == nil || k.reason != "" {
		s.mu.Unlock()
		return
	}
	k.waiting = nil
	s.mu.Unlock()
	for _, other := range s.waitingKeepers() {
		if slices.Contains(other.dev.Deps(false), k.dev.Number()) {
			s.suspendAgain(ctx, other)
		}
	}
	if err := k.dev.Suspend(ctx, true); err != nil {
		s.log.Error("a device could not be suspended again", "device", k.dev.Name(), "reason", err)
	}
}

// dropWaiting forgets saved tables that waited: the inactive one because it was
// cleared, or all because the device has a live table now.
func (s *Server) dropWaiting(d *dm.Device, inactiveOnly bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keeperLocked(d)
	if k.waiting == nil {
		return
	}
	w := *k.waiting
	w.Inactive = nil
	k.waiting = &w
	if !inactiveOnly || w.Live == nil {
		k.waiting, k.reason = nil, ""
	}
}
