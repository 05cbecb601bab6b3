package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

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

// Hand describes all devices.
func (s *State) Hand() (list []Handed) {
	for _, d := range s.control.List() {
		st := d.Status()
		list = append(list, Handed{Minor: st.Number.Minor, Live: st.Live, Event: st.EventNr, DeferredRemove: st.DeferredRemove,
			LiveText: s.keyed(d, false), InactiveText: s.keyed(d, true)})
	}
	return list
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

// Take is called before Restore with what another process has handed over.
func (s *State) Take(list []Handed) {
	s.handed = make(map[uint32]Handed)
	for _, h := range list {
		s.handed[h.Minor] = h
	}
}

// Complete returns an error that names devices which were live in the process before, and
// are not.
func (s *State) Complete() (err error) {
	for minor, h := range s.handed {
		d, derr := s.control.Number(dm.Number{Major: dm.Major, Minor: minor})
		switch {
		case derr != nil:
			err = errors.Join(err, fmt.Errorf("the device %d:%d is not there", dm.Major, minor))
		case h.Live && !d.Status().Live:
			err = errors.Join(err, fmt.Errorf("the table of %s cannot be loaded: %s", d.Name(), s.Waiting(d)))
		}
	}
	return err
}

// Taken ends a Restore after Take, when the clients have their devices again.
func (s *State) Taken() (err error) {
	err = s.saveFormat()
	for minor, h := range s.handed {
		d, derr := s.control.Number(dm.Number{Major: dm.Major, Minor: minor})
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
