package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"

	"udm/ctl/server/handover"
	"udm/dm"
	"udm/env/hostfs"
)

// Format is the version of everything that is saved in a root: the devices, and the files
// of the packages beside this one. A newer daemon reads what an older one has saved, and
// counts it up when it writes what the older one would misunderstand.
const Format = 1

// formatFile is the file with the format, in the root.
const formatFile = "format.json"

type savedFormat struct {
	Format int `json:"format"`
}

func (s *State) formatPath() string { return filepath.Join(filepath.Dir(s.store.dir), formatFile) }

// checkFormat refuses what a newer program has saved. What has no format is older.
func (s *State) checkFormat() error {
	text, err := s.store.fs.ReadFile(s.formatPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.format)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.formatPath(), err)
	}
	if s.format.Format > Format {
		return fmt.Errorf("%s: the saved state has format %d; this program reads up to %d: run the newer one", s.formatPath(), s.format.Format, Format)
	}
	return nil
}

// saveFormat notes that what is saved from now on has this program's format.
func (s *State) saveFormat() error {
	now := savedFormat{Format}
	if s.format == now {
		return nil
	}
	err := hostfs.Replace(s.store.fs, s.formatPath(), now)
	if err == nil {
		s.format = now
	}
	return err
}

// Handed is what is not saved of a device, for the process that takes it over.
type Handed struct {
	Minor          uint32
	Live           bool
	Event          uint32
	DeferredRemove bool
	// The tables with their keys, where they have keys.
	LiveText, InactiveText []string
}

// Hand describes devices of a group.
func (s *State) Hand(g handover.Group) (list []Handed) {
	for _, d := range s.control.List() {
		if !g.Has(d.Number().Minor) {
			continue
		}
		st := d.Status()
		list = append(list, Handed{Minor: st.Number.Minor, Live: st.Live, Event: st.EventNr, DeferredRemove: st.DeferredRemove,
			LiveText: s.keyed(d, false), InactiveText: s.keyed(d, true)})
	}
	return list
}

// Changing reports whether the saved state of a device is not in force yet, or not saved: the
// next process then makes a table of it that may stand on other devices than the one here.
func (s *State) Changing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		if e.next != nil || e.unsaved {
			return true
		}
	}
	return false
}

// keyed is a table with its keys, if it has any.
func (s *State) keyed(d *dm.Device, inactive bool) (text []string) {
	specs, _, ok := d.Loaded(inactive)
	if !ok {
		return nil
	}
	if _, keyed := s.control.WithoutKeys(specs); !keyed {
		return nil
	}
	for _, sp := range specs {
		text = append(text, sp.String())
	}
	return text
}

func (h Handed) giveKeys(r *record) {
	if r.Live != nil {
		r.Live.keyed = h.LiveText
	}
	if r.Inactive != nil {
		r.Inactive.keyed = h.InactiveText
	}
}

// Expect creates every saved device, in place of Restore. Their tables come with Take, or
// Complete. Nothing is written.
func (s *State) Expect() error {
	err := s.restoreDisks()
	list, cerr := s.create()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range list {
		s.away[r.Minor] = true
	}
	return errors.Join(err, cerr)
}

// Away reports whether a device is with the process before.
func (s *State) Away(d *dm.Device) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.away[d.Number().Minor]
}

// Await waits until a device is not Away, and has its table.
func (s *State) Await(d *dm.Device) {
	s.come.Until(func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		minor := d.Number().Minor
		return !s.away[minor] && !s.coming[minor]
	})
}

// arrive loads the tables of devices that are coming.
func (s *State) arrive(ctx context.Context) {
	s.bringAllBack(ctx)
	s.mu.Lock()
	clear(s.coming)
	s.mu.Unlock()
	s.come.Wake()
}

// Take loads the tables of devices that another process has handed over. The error names
// those that were live there and are not here.
func (s *State) Take(ctx context.Context, list []Handed) (err error) {
	s.mu.Lock()
	for _, h := range list {
		delete(s.away, h.Minor)
		s.coming[h.Minor] = true
		if e := s.entries[h.Minor]; e != nil && e.waiting != nil {
			h.giveKeys(e.waiting)
		}
	}
	s.mu.Unlock()
	s.arrive(ctx)
	for _, h := range list {
		err = errors.Join(err, s.missing(h))
	}
	return err
}

// missing returns an error if a device was live in the process before and is not.
func (s *State) missing(h Handed) error {
	d, err := s.control.Number(dm.Number{Major: dm.Major, Minor: h.Minor})
	switch {
	case err != nil:
		return fmt.Errorf("the device %d:%d is not there", dm.Major, h.Minor)
	case h.Live && !d.Status().Live:
		return fmt.Errorf("the table of %s cannot be loaded: %s", d.Name(), s.Waiting(d))
	}
	return nil
}

// Taken follows Take, when the clients have their devices again.
func (s *State) Taken(list []Handed) (err error) {
	err = s.saveFormat()
	for _, h := range list {
		d, derr := s.control.Number(dm.Number{Major: dm.Major, Minor: h.Minor})
		if derr != nil {
			continue
		}
		d.CountEventsFrom(h.Event)
		if h.DeferredRemove {
			_, rerr := d.Remove(true)
			err = errors.Join(err, rerr, s.Save(d))
		}
	}
	return err
}

// ComeNoMore ends all that waits for devices, which are given back, or stay where they are.
func (s *State) ComeNoMore() {
	s.mu.Lock()
	clear(s.away)
	clear(s.coming)
	s.mu.Unlock()
	s.come.Wake()
}

// Complete ends what Expect has begun: devices that were not handed over are restored from
// what is saved.
func (s *State) Complete(ctx context.Context) (err error) {
	s.mu.Lock()
	left := s.away
	s.away = make(map[uint32]bool)
	maps.Copy(s.coming, left)
	s.mu.Unlock()
	s.arrive(ctx)
	for minor := range left {
		err = errors.Join(err, s.removeMarked(minor))
	}
	return errors.Join(err, s.saveFormat())
}
