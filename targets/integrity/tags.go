package integrity

import (
	"errors"
	"sync"

	"udm/blk"
	"udm/env"
)

// maxCachedTags bounds the memory of a target's tags, in bytes. While tags are dirty and
// cannot be written there may be more.
const maxCachedTags = 4 << 20

// tags are the tags on disk, read and written in units. Units that were changed are
// written by flush, or when there are too many.
type tags struct {
	env  env.Env
	dev  blk.Device
	base uint64 // sector of the first unit
	size int    // bytes of a unit
	most int
	wait env.Wait // for units that are read or written

	mu    sync.Mutex
	units map[uint64]*unit // guarded by mu
	clock uint64           // guarded by mu
}

// unit is a part of the tags.
type unit struct {
	index uint64
	data  []byte // guarded by mu, once loaded
	busy  bool   // guarded by mu; somebody reads or writes it
	dirty bool   // guarded by mu
	used  uint64 // guarded by mu; when
}

func (t *tags) init(e env.Env, dev blk.Device, base uint64, sectors uint64) {
	t.env, t.dev, t.base, t.size = e, dev, base, int(sectors*blk.SectorSize)
	t.most = max(16, maxCachedTags/t.size)
	t.wait = e.NewWait()
	t.units = make(map[uint64]*unit)
}

// each calls f, under mu, with the parts of units that make up n bytes from a byte on.
func (t *tags) each(at uint64, n int, f func(u *unit, part []byte)) error {
	for n > 0 {
		index, from := at/uint64(t.size), int(at%uint64(t.size))
		part := min(n, t.size-from)
		if err := t.with(index, func(u *unit) { f(u, u.data[from:from+part]) }); err != nil {
			return err
		}
		at, n = at+uint64(part), n-part
	}
	return nil
}

// read fills p with the bytes of tags from a byte on.
func (t *tags) read(p []byte, at uint64) error {
	return t.each(at, len(p), func(_ *unit, part []byte) { p = p[copy(p, part):] })
}

// write puts p there; it is on disk after a flush.
func (t *tags) write(p []byte, at uint64) error {
	return t.each(at, len(p), func(u *unit, part []byte) {
		p = p[copy(part, p):]
		u.dirty = true
	})
}

// fill puts n bytes of b there.
func (t *tags) fill(b byte, n int, at uint64) error {
	return t.each(at, n, func(u *unit, part []byte) {
		for i := range part {
			part[i] = b
		}
		u.dirty = true
	})
}

// with calls f, under mu, with a unit that is loaded and that nobody reads or writes.
func (t *tags) with(index uint64, f func(*unit)) error {
	for {
		u, load := t.get(index, f)
		if !load {
			return nil
		}
		data := make([]byte, t.size)
		err := blk.ReadSectors(t.env, t.dev, data, t.sector(index))
		t.mu.Lock()
		u.data, u.busy = data, false
		if err != nil {
			delete(t.units, index)
		}
		t.mu.Unlock()
		t.wait.Wake()
		if err != nil {
			return err
		}
		if err := t.shrink(); err != nil {
			return err
		}
	}
}

// get calls f with a unit that is there, or makes one that the caller has to load.
func (t *tags) get(index uint64, f func(*unit)) (u *unit, load bool) {
	t.wait.Until(func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		u = t.units[index]
		switch {
		case u == nil:
			u = &unit{index: index, busy: true}
			t.units[index] = u
			load = true
		case u.busy:
			return false
		default:
			f(u)
		}
		t.clock++
		u.used = t.clock
		return true
	})
	return u, load
}

func (t *tags) sector(index uint64) uint64 { return t.base + index*uint64(t.size/blk.SectorSize) }

// shrink drops units that were not used for long while there are too many.
func (t *tags) shrink() error {
	for {
		t.mu.Lock()
		var oldest *unit
		for _, u := range t.units {
			if !u.busy && (oldest == nil || u.used < oldest.used) {
				oldest = u
			}
		}
		switch {
		case len(t.units) <= t.most || oldest == nil:
			t.mu.Unlock()
			return nil
		case !oldest.dirty:
			delete(t.units, oldest.index)
			t.mu.Unlock()
			continue
		}
		oldest.busy = true
		t.mu.Unlock()
		if err := t.writeOut(oldest); err != nil {
			return err
		}
	}
}

// writeOut writes a unit that the caller has made busy.
func (t *tags) writeOut(u *unit) error {
	err := blk.WriteSectors(t.env, t.dev, u.data, t.sector(u.index), 0)
	t.mu.Lock()
	u.busy, u.dirty = false, err != nil
	t.mu.Unlock()
	t.wait.Wake()
	return err
}

// flush writes all that was changed before. It is durable after a flush of the device.
func (t *tags) flush() error {
	t.mu.Lock()
	var dirty []*unit
	for _, u := range t.units {
		if u.dirty || u.busy {
			dirty = append(dirty, u)
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, u := range dirty {
		if t.claim(u) {
			errs = append(errs, t.writeOut(u))
		}
	}
	return errors.Join(errs...)
}

// claim makes a unit busy that is dirty once nobody else reads or writes it.
func (t *tags) claim(u *unit) (claimed bool) {
	t.wait.Until(func() bool {
		t.mu.Lock()
		defer t.mu.Unlock()
		if u.busy {
			return false
		}
		claimed = u.dirty
		u.busy = claimed
		return true
	})
	return claimed
}
