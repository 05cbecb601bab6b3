package pdata

import (
	"hash/crc32"

	"udm/internal/invariants"
)

// clockSteps bounds the search for a page to evict: should it find none, the
// cache grows by one, and the next search goes on where this one ended.
const clockSteps = 64

// admit gives p a place in the ring, at the cost of a page that is clean and
// was not looked at lately if the cache is full.
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

// evictable gives a page that was looked at a second chance.
func (bm *BlockManager) evictable(p *page) bool {
	if p.dirty || bm.slot(p.nr).fresh {
		return false
	}
	return p.used.Swap(0) == 0
}

func (bm *BlockManager) evict(p *page) {
	s := bm.slot(p.nr)
	if s.shown.Load() == p {
		p.checkShown()
	}
	s.cur = nil
	s.shown.Store(nil)
}

// Settle ends a call of the owner: no Shadow of it is used any more. It writes
// changed pages when there are many, which is legal at any time (see the
// package comment), and brings the cache back to its size.
func (bm *BlockManager) Settle() error {
	if len(bm.dirty) > bm.limit/2 {
		if err := bm.writeBack(); err != nil {
			return err
		}
	}
	for i := 0; len(bm.ring) > bm.limit && i < len(bm.ring); {
		p := bm.ring[i]
		if p.dirty || bm.slot(p.nr).fresh {
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

// Crowded reports whether so much of the cache waits for Publish that the rest
// is short of room.
func (bm *BlockManager) Crowded() bool { return len(bm.fresh) > bm.limit/4 }

// Cached is the number of pages in the cache.
func (bm *BlockManager) Cached() int { return len(bm.ring) }

// show remembers what readers are about to see, checkShown that nobody changed
// it. The first 16 bytes are filled in when the page is written.
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
