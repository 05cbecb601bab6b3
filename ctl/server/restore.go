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
		k := s.keeper(d)
		s.mu.Lock()
		k.waiting, k.disk = r, r.Live != nil || r.Inactive != nil
		s.mu.Unlock()
	}
	s.retry(ctx)
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
			s.retry(ctx)
			s.sweep()
			s.files.retry()
		}
	}
}

// retry goes through the devices that wait, lower ones first, until a round
// brings up none.
func (s *Server) retry(ctx context.Context) {
	for progress := true; progress; {
		progress = false
		for _, k := range s.waitingKeepers() {
			if s.bringBack(ctx, k) {
				progress = true
			}
		}
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

// bringBack loads the tables of one device and reports whether all are there.
func (s *Server) bringBack(ctx context.Context, k *keeper) bool {
	s.mu.Lock()
	w := k.waiting
	s.mu.Unlock()
	if w == nil {
		return false
	}
	err := s.waitsFor(w)
	if err == nil {
		err = s.loadSaved(ctx, k.dev, w)
	}
	s.mu.Lock()
	before := k.reason
	if err == nil {
		k.waiting, k.reason = nil, ""
	} else {
		k.reason = err.Error()
	}
	s.mu.Unlock()
	s.tell(k.dev, before, err)
	return err == nil
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

// waitsFor is an error as long as a mapped device that a table names has no
// tables of its own yet.
func (s *Server) waitsFor(w *record) error {
	for _, t := range []*table{w.Live, w.Inactive} {
		if t == nil {
			continue
		}
		for _, word := range strings.Fields(strings.Join(t.Text, " ")) {
			n, ok := s.mapped(word)
			if d, err := s.control.Number(n); ok && err == nil && s.isWaiting(d) {
				return fmt.Errorf("waits for the device %s", d.Name())
			}
		}
	}
	return nil
}

func (s *Server) isWaiting(d *dm.Device) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeperLocked(d).waiting != nil
}

// loadSaved gives a device the tables and the state that it had. What of it is
// there already stays.
func (s *Server) loadSaved(ctx context.Context, d *dm.Device, w *record) error {
	st := d.Status()
	if w.Live != nil && !st.Live {
		if err := s.loadText(d, w.Live); err != nil {
			return err
		}
		if err := d.Resume(ctx, false); err != nil {
			return err
		}
	}
	if w.Inactive != nil && !st.Inactive {
		if err := s.loadText(d, w.Inactive); err != nil {
			return err
		}
	}
	if w.Suspended {
		return d.Suspend(ctx, true)
	}
	return nil
}

func (s *Server) loadText(d *dm.Device, t *table) error {
	specs, err := s.parse(strings.Join(t.Text, "\n"))
	if err != nil {
		return err
	}
	return d.Load(specs, dm.Mode{Write: !t.ReadOnly})
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
