package memdev

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"udm/blk"
)

// maxVersions bounds what is remembered of a sector that is written again and
// again without a flush. Forgetting one in the middle leaves a legal set.
const maxVersions = 8

// cache knows what a power cut may leave. A sector that was changed since the
// last flush has its durable content first in its list, then what was written
// over it, oldest first; what it holds now is in the pages. A disk may write
// its cache back at any moment and in any order, so each of them may survive.
type cache struct {
	mu    sync.Mutex          // also serialises the changes themselves
	dirty map[uint64][][]byte // guarded by mu; by sector
}

func newCache() *cache { return &cache{dirty: make(map[uint64][][]byte)} }

// change carries out a bio that writes, as one step with its bookkeeping.
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

// through makes a write durable: nothing older can come back.
func (c *cache) through(d *Device, b *blk.Bio) blk.Status {
	st := d.change(b)
	if st == blk.OK {
		for s := b.Sector; s < b.EndSector(); s++ {
			delete(c.dirty, s)
		}
	}
	return st
}

// rememberLocked keeps the content that b is about to replace. Zeroing an
// absent page changes nothing and is not remembered.
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

// crash is a copy of d in which pick has chosen for every dirty sector, lowest
// first, among its versions, the newest last.
func (d *Device) crash(pick func(sector uint64, versions [][]byte) []byte) *Device {
	n := New(0, Tune(func(l *blk.Limits) { *l = d.Limits() }))
	if d.cache == nil {
		d.pages.clone(&n.pages, n.size.Load()<<blk.SectorShift)
		return n
	}
	n.cache = newCache()
	d.cache.mu.Lock()
	defer d.cache.mu.Unlock()
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

// CrashClone is a legal disk after a power cut at this moment: every write that
// was flushed or had FUA is there; of each other sector what it holds is any of
// its contents since. Equal seeds give equal disks. How much survives, and in
// pieces of which size, depends on the seed as well. d goes on unharmed.
func (d *Device) CrashClone(seed uint64) *Device {
	r := rand.New(rand.NewPCG(seed, 0x6d656d646576))
	survives := r.Float64()
	piece := uint64(1) << r.IntN(8) // sectors that live or die together
	at, alive := ^uint64(0), false
	return d.crash(func(s uint64, v [][]byte) []byte {
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
	})
}

// CrashCloneNone is the disk after a power cut of which nothing survived that
// was not flushed.
func (d *Device) CrashCloneNone() *Device {
	return d.crash(func(_ uint64, v [][]byte) []byte { return v[0] })
}

// CrashCloneAll is the disk after a power cut of which everything survived.
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
