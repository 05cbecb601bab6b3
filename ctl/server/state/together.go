package state

import (
	"errors"
	"fmt"
	"slices"

	"udm/dm"
	"udm/volume"
)

// together is how many devices are saved at once: their files are written, synced side
// by side, and renamed with one flush of the directory. Other commands about devices
// with the same locks wait meanwhile.
const together = 64

// update is what the file of a device is to say.
type update struct {
	e    *entry
	r    *record
	text string
}

// updateOf is what the file of a device is to say now; none if it says so, or if other,
// whose file has the name still, has to be saved first. Called with the device's saving
// lock.
func (s *State) updateOf(d *dm.Device) (u *update, other *dm.Device) {
	e := s.entry(d)
	r := s.record(e)
	t := text(r)
	if t == e.saved {
		s.discard(e, r.Minor)
		return nil, nil
	}
	if other := s.claim(d, r); other != nil {
		return nil, other
	}
	return &update{e, r, t}, nil
}

// prepare writes what files are to say beside them, where it is not there. Called with
// the devices' saving locks.
func (s *State) prepare(us []update) error {
	var rs []*record
	for _, u := range us {
		if u.text != u.e.prepared {
			u.e.prepared = ""
			rs = append(rs, u.r)
		}
	}
	if len(rs) == 0 {
		return nil
	}
	if err := s.store.prepare(rs); err != nil {
		for _, r := range rs {
			s.store.discard(r.Minor)
		}
		return err
	}
	for _, u := range us {
		u.e.prepared = u.text
	}
	return nil
}

// replace makes files say what they are to say. Called with the devices' saving locks.
func (s *State) replace(us []update) error {
	if len(us) == 0 {
		return nil
	}
	if err := s.prepare(us); err != nil {
		return err
	}
	rs := make([]*record, len(us))
	for i, u := range us {
		rs[i], u.e.saved, u.e.prepared = u.r, "", ""
	}
	if err := s.store.commit(rs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range us {
		u.e.saved = u.text
		s.unclaimLocked(u.r.Minor, claims(u.r))
	}
	return nil
}

// lock takes the saving locks of devices, in their order.
func (s *State) lock(ds []*dm.Device) (unlock func()) {
	held := make([]bool, len(s.saving))
	for _, d := range ds {
		held[d.Number().Minor%uint32(len(held))] = true
	}
	for i, h := range held {
		if h {
			s.saving[i].Lock()
		}
	}
	return func() {
		for i, h := range held {
			if h {
				s.saving[i].Unlock()
			}
		}
	}
}

// PrepareAll is Prepare of changes of several devices. After an error none is to be made.
func (s *State) PrepareAll(ds []*dm.Device, cs []Change) error {
	for at := 0; at < len(ds); at += together {
		end := min(at+together, len(ds))
		if err := s.prepareSome(ds[at:end], cs[at:end]); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) prepareSome(ds []*dm.Device, cs []Change) error {
	defer s.lock(ds)()
	us := make([]update, len(ds))
	for i, d := range ds {
		e := s.entry(d)
		r := s.record(e)
		cs[i](r)
		us[i] = update{e, r, text(r)}
	}
	return s.prepare(us)
}

// SaveAll is Save of several devices.
func (s *State) SaveAll(ds []*dm.Device) (err error) {
	for some := range slices.Chunk(ds, together) {
		err = errors.Join(err, s.saveTogether(some))
	}
	if err != nil {
		return fmt.Errorf("devices were changed, but the change cannot be saved: %w", err)
	}
	return nil
}

func (s *State) saveTogether(ds []*dm.Device) error {
	rest, err := s.saveSome(ds)
	s.mu.Lock()
	for _, d := range ds {
		if e := s.entries[d.Number().Minor]; e != nil && e.dev == d {
			e.unsaved = err != nil
		}
	}
	s.mu.Unlock()
	for _, d := range rest {
		err = errors.Join(err, s.Save(d))
	}
	return err
}

// saveSome saves those of some devices that need not wait for others.
func (s *State) saveSome(ds []*dm.Device) (rest []*dm.Device, err error) {
	defer s.lock(ds)()
	var us []update
	for _, d := range ds {
		if s.isGone(d) {
			rest = append(rest, d)
		} else if u, other := s.updateOf(d); other != nil {
			rest = append(rest, d)
		} else if u != nil {
			us = append(us, *u)
		}
	}
	return rest, s.replace(us)
}

// EraseAll is Erase of several devices. After an error any of their files may be gone.
func (s *State) EraseAll(ds []*dm.Device) error {
	for some := range slices.Chunk(ds, together) {
		if err := s.eraseSome(some); err != nil {
			return err
		}
	}
	return nil
}

func (s *State) eraseSome(ds []*dm.Device) error {
	defer s.lock(ds)()
	for _, d := range ds {
		s.entry(d).saved = ""
	}
	err := s.erase(ds)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, d := range ds {
			s.entryLocked(d).unsaved = true // the file may be gone, or go in a power cut
		}
	}
	return err
}

// AnnounceAll saves what devices are about to be: from then on a restart makes them that.
// Arrived follows, or Withdraw. A device without specs keeps its table. A crash leaves
// any of them announced.
func (s *State) AnnounceAll(cs []dm.Change, rs []volume.Record) error {
	ds := make([]*dm.Device, len(cs))
	for i, c := range cs {
		ds[i] = c.Device
		s.setNext(c.Device, s.nextOf(c, rs[i]))
	}
	for some := range slices.Chunk(ds, together) {
		if err := s.announceSome(some); err != nil {
			return fmt.Errorf("nothing was changed, because the change cannot be saved: %w", err)
		}
	}
	return nil
}

func (s *State) nextOf(c dm.Change, r volume.Record) *next {
	if len(c.Specs) > 0 {
		return &next{s.newTable(c.Specs, c.Mode), r}
	}
	return &next{s.loaded(c.Device, false), r}
}

func (s *State) announceSome(ds []*dm.Device) error {
	rest, err := s.saveSome(ds)
	for _, d := range rest {
		err = errors.Join(err, s.saveAfter(d, nil))
	}
	return err
}
