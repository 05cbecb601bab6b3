package integrity

import (
	"cmp"
	"errors"
	"slices"
	"sync"

	"udm/blk"
	"udm/env"
)

// maxCachedTags bounds the cached tags of a target, in bytes. The cache exceeds it while
// changed tags cannot be written.
const maxCachedTags = 4 << 20

// tags is a write-back cache of the tags on disk. Positions are in bytes from the first tag.
// Changed units are written by flush, or when the cache is full.
type tags struct {
	env   env.Env
	dev   blk.Device
	base  uint64   // sector of the first unit
	size  int      // bytes of a unit
	limit int      // units
	wait  env.Wait // for busy units

	mu    sync.Mutex
	units map[uint64]*unit // guarded by mu; by index
	clock uint64           // guarded by mu; counts uses
}

// unit is the unit in which tags are read, cached and written.
type unit struct {
	index uint64
	data  []byte // guarded by mu; while busy, owned by the I/O
	busy  bool   // guarded by mu; being read or written
	dirty bool   // guarded by mu
	used  uint64 // guarded by mu; clock at the last use
}

func (t *tags) init(e env.Env, dev blk.Device, base uint64, sectors uint64) {
	t.env, t.dev, t.base, t.size = e, dev, base, int(sectors*blk.SectorSize)
	t.limit = max(16, maxCachedTags/t.size)
	t.wait = e.NewWait()
	t.units = make(map[uint64]*unit)
}

// each calls f, with mu held, for the parts of units that cover n bytes from position at.
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

// read fills p with the tags at a position.
func (t *tags) read(p []byte, at uint64) error {
	return t.each(at, len(p), func(_ *unit, part []byte) { p = p[copy(p, part):] })
}

// write stores tags in the cache. They are on disk after flush.
func (t *tags) write(p []byte, at uint64) error {
	return t.each(at, len(p), func(u *unit, part []byte) {
		p = p[copy(part, p):]
		u.dirty = true
	})
}

// fill stores n bytes of value b in the cache.
func (t *tags) fill(b byte, n int, at uint64) error {
	return t.each(at, n, func(u *unit, part []byte) {
		for i := range part {
			part[i] = b
		}
		u.dirty = true
	})
}

// with loads a unit if necessary, waits until it is not busy, and calls f with mu held.
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

// get calls f, with mu held, if the unit is loaded. Otherwise it creates the unit, busy, and
// returns load = true: the caller must load it.
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

// shrink evicts the least recently used units while there are too many.
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
		case len(t.units) <= t.limit || oldest == nil:
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

// writeOut writes a unit that the caller has marked busy.
func (t *tags) writeOut(u *unit) error {
	err := blk.WriteSectors(t.env, t.dev, u.data, t.sector(u.index), 0)
	t.mu.Lock()
	u.busy, u.dirty = false, err != nil
	t.mu.Unlock()
	t.wait.Wake()
	return err
}

// flush writes all units changed before the call, in ascending order. The caller then flushes
// the device to make them durable.
func (t *tags) flush() error {
	t.mu.Lock()
	var dirty []*unit
	for _, u := range t.units {
		if u.dirty || u.busy {
			dirty = append(dirty, u)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(dirty, func(a, b *unit) int { return cmp.Compare(a.index, b.index) })
	var errs []error
	for _, u := range dirty {
		if t.claim(u) {
			errs = append(errs, t.writeOut(u))
		}
	}
	return errors.Join(errs...)
}

// claim waits until a unit is not busy. If it is dirty then, claim marks it busy and
// returns true.
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
