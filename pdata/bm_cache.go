package pdata

import (
	"hash/crc32"

	"udm/blk"
	"udm/internal/invariants"
)

// clockSteps bounds the search for a page to evict. If it finds none, the cache
// grows by one page, and the next search continues where this one ended.
const clockSteps = 64

// admit adds p to the ring. If the cache is full it evicts a page that is clean
// and was not accessed lately.
func (bm *BlockManager) admit(p *page) {
	if len(bm.ring) >= bm.limit {
		for range clockSteps {
			bm.hand = (bm.hand + 1) % len(bm.ring)
			if v := bm.ring[bm.hand]; bm.evictable(v) {
				bm.evict(v)
				p.ring = bm.hand
				bm.ring[bm.hand] = p
				return
			}
		}
	}
	p.ring = len(bm.ring)
	bm.ring = append(bm.ring, p)
}

// evictable gives a page that was accessed a second chance.
func (bm *BlockManager) evictable(p *page) bool {
	return !bm.pinned(p) && p.used.Swap(0) == 0
}

// pinned reports whether p is needed in the cache: the disk does not have its
// content yet, or readers do not.
func (bm *BlockManager) pinned(p *page) bool { return p.dirty || p.going || bm.slot(p.nr).fresh }

func (bm *BlockManager) evict(p *page) {
	s := bm.slot(p.nr)
	if s.shown.Load() == p {
		p.checkShown()
	}
	s.cur = nil
	s.shown.Store(nil)
}

// Settle ends a call of the owner, whose Shadows are no longer used. It writes
// the dirty pages if they are many, which is allowed at any time (see the package
// comment), and shrinks the cache to its limit. What finds no space on the device
// stays in memory.
func (bm *BlockManager) Settle() error {
	if len(bm.dirty) > bm.limit/2 {
		if err := bm.writeBack(); err != nil && err != blk.NoSpace {
			return err
		}
	}
	for i := 0; len(bm.ring) > bm.limit && i < len(bm.ring); {
		p := bm.ring[i]
		if bm.pinned(p) {
			i++
			continue
		}
		bm.evict(p)
		last := bm.ring[len(bm.ring)-1]
		bm.ring[i], last.ring = last, i
		bm.ring[len(bm.ring)-1] = nil
		bm.ring = bm.ring[:len(bm.ring)-1]
	}
	return nil
}

// Crowded reports whether pages that wait for Publish take up too much of the
// cache.
func (bm *BlockManager) Crowded() bool { return len(bm.fresh) > bm.limit/4 }

// Cached is the number of pages in the cache.
func (bm *BlockManager) Cached() int { return len(bm.ring) }

// show records the checksum of a page that is about to be published; checkShown
// checks that it has not changed. Writing the page fills in its first 16 bytes,
// which do not count.
func (p *page) show() {
	if invariants.Enabled {
		p.sum = crc32.Checksum(p.data[16:], castagnoli)
	}
}

func (p *page) checkShown() {
	if invariants.Enabled {
		invariants.Check(p.sum == crc32.Checksum(p.data[16:], castagnoli), "block %d was changed though readers see it", p.nr)
	}
}
