package memdev

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"udm/blk"
)

// maxVersions bounds the versions recorded of a sector that is rewritten without
// a flush. Dropping one from the middle leaves a legal set.
const maxVersions = 8

// cache records what a power cut may leave. Each sector changed since the last
// flush has a list: its durable content, then the contents written since, oldest
// first. The newest content is in the pages. A disk may write back its cache at
// any moment and in any order, so each of these contents may survive.
type cache struct {
	mu    sync.Mutex          // also serialises the changes themselves
	dirty map[uint64][][]byte // guarded by mu; by sector
}

func newCache() *cache { return &cache{dirty: make(map[uint64][][]byte)} }

// change carries out a bio that writes, atomically with its bookkeeping.
func (c *cache) change(d *Device, b *blk.Bio) blk.Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.Flags&blk.Preflush != 0 {
		clear(c.dirty)
	}
	if b.Flags&blk.FUA != 0 && d.limits.FUA {
		return c.through(d, b)
	}
	c.rememberLocked(d, b)
	return d.change(b)
}

// through makes a write durable: no older content can survive.
func (c *cache) through(d *Device, b *blk.Bio) blk.Status {
	st := d.change(b)
	if st == blk.OK {
		for s := b.Sector; s < b.EndSector(); s++ {
			delete(c.dirty, s)
		}
	}
	return st
}

// rememberLocked records the content that b is about to replace. Zeroing an
// absent page changes nothing and is not recorded.
func (c *cache) rememberLocked(d *Device, b *blk.Bio) {
	const perPage = pageSize / blk.SectorSize
	end := b.EndSector()
	for s := b.Sector; s < end; s++ {
		if b.Op != blk.Write {
			n, _ := d.pages.next(s/perPage, (end+perPage-1)/perPage)
			if s = max(s, n*perPage); s >= end {
				return
			}
		}
		old := make([]byte, blk.SectorSize)
		d.pages.read(old, s<<blk.SectorShift)
		c.addLocked(s, old)
	}
}

func (c *cache) addLocked(sector uint64, content []byte) {
	v := append(c.dirty[sector], content)
	if len(v) > maxVersions {
		v = slices.Delete(v, 1, 2)
	}
	c.dirty[sector] = v
}

func (c *cache) flush() {
	c.mu.Lock()
	clear(c.dirty)
	c.mu.Unlock()
}

func (c *cache) cut(sectors uint64) {
	c.mu.Lock()
	maps.DeleteFunc(c.dirty, func(s uint64, _ [][]byte) bool { return s >= sectors })
	c.mu.Unlock()
}

// crash returns a copy of d. For every dirty sector, lowest first, pick chooses
// among its versions, the newest last.
func (d *Device) crash(pick func(sector uint64, versions [][]byte) []byte) *Device {
	n := New(0, Tune(func(l *blk.Limits) { *l = d.Limits() }))
	if d.cache == nil {
		d.pages.clone(&n.pages, n.size.Load()<<blk.SectorShift)
		return n
	}
	d.cache.mu.Lock()
	defer d.cache.mu.Unlock()
	return d.crashLocked(n, pick)
}

func (d *Device) crashLocked(n *Device, pick func(sector uint64, versions [][]byte) []byte) *Device {
	n.cache = newCache()
	d.pages.clone(&n.pages, n.size.Load()<<blk.SectorShift)
	for _, s := range slices.Sorted(maps.Keys(d.cache.dirty)) {
		now := make([]byte, blk.SectorSize)
		d.pages.read(now, s<<blk.SectorShift)
		v := append(slices.Clip(d.cache.dirty[s]), now)
		if p := pick(s, v); !bytes.Equal(p, now) {
			n.pages.write(p, s<<blk.SectorShift)
		}
	}
	return n
}

// CrashClone returns a legal disk after a power cut at this moment. Every write
// that was flushed or had FUA is there; every other sector holds any one of its
// contents since. Equal seeds give equal disks. The seed also determines how much
// survives, and in pieces of which size. d is unaffected.
func (d *Device) CrashClone(seed uint64) *Device { return d.crash(survivors(seed)) }

// CrashClones is CrashClone of several volatile disks at one moment, for disks whose
// users go on meanwhile. Disk i gets seed+i.
func CrashClones(seed uint64, ds ...*Device) (after []*Device) {
	for _, d := range ds {
		d.cache.mu.Lock()
		defer d.cache.mu.Unlock()
	}
	for i, d := range ds {
		n := New(0, Tune(func(l *blk.Limits) { *l = d.Limits() }))
		after = append(after, d.crashLocked(n, survivors(seed+uint64(i))))
	}
	return after
}

// survivors picks what survives a power cut.
func survivors(seed uint64) func(sector uint64, versions [][]byte) []byte {
	r := rand.New(rand.NewPCG(seed, 0x6d656d646576))
	survives := r.Float64()
	piece := uint64(1) << r.IntN(8) // sectors that survive or are lost together
	at, alive := ^uint64(0), false
	return func(s uint64, v [][]byte) []byte {
		if s/piece != at {
			at, alive = s/piece, r.Float64() < survives
		}
		if alive && r.IntN(4) > 0 {
			return v[len(v)-1]
		}
		if alive {
			return v[r.IntN(len(v))]
		}
		return v[0]
	}
}

// CrashCloneNone returns the disk after a power cut that lost everything
// unflushed.
func (d *Device) CrashCloneNone() *Device {
	return d.crash(func(_ uint64, v [][]byte) []byte { return v[0] })
}

// CrashCloneAll returns the disk after a power cut that lost nothing.
func (d *Device) CrashCloneAll() *Device {
	return d.crash(func(_ uint64, v [][]byte) []byte { return v[len(v)-1] })
}

// Dirty counts the sectors that a power cut could change.
func (d *Device) Dirty() int {
	if d.cache == nil {
		return 0
	}
	d.cache.mu.Lock()
	defer d.cache.mu.Unlock()
	return len(d.cache.dirty)
}
