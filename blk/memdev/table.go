package memdev

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

const (
	pageShift = 16
	pageSize  = 1 << pageShift // bytes
	leafShift = 10             // pages in a leaf, log2: a leaf maps 64 MiB
	leafLen   = 1 << leafShift
	segments  = 39 // enough leaves for 2^64 bytes
)

// page is 64 KiB of content. lock is empty except under the race detector.
type page struct {
	lock pageLock
	data [pageSize]byte
}

type leaf [leafLen]atomic.Pointer[page]

// table looks up pages by number without locks. Segment k holds 2^k leaves, so
// the table grows with the highest page written and nothing in it ever moves. The
// zero value is an empty table.
type table struct {
	seg  [segments]atomic.Pointer[[]atomic.Pointer[leaf]]
	huge bool // new pages are to lie in huge ones
}

// locate returns the segment of leaf n and its index there.
func locate(n uint64) (k int, i uint64) {
	k = bits.Len64(n+1) - 1
	return k, n + 1 - 1<<k
}

// leaf returns nil if nothing was ever written there.
func (t *table) leaf(n uint64) *leaf {
	k, i := locate(n)
	if s := t.seg[k].Load(); s != nil {
		return (*s)[i].Load()
	}
	return nil
}

// get returns nil for an absent page.
func (t *table) get(n uint64) *page {
	if l := t.leaf(n >> leafShift); l != nil {
		return l[n%leafLen].Load()
	}
	return nil
}

// need returns the page, allocating it if absent.
func (t *table) need(n uint64) *page {
	k, i := locate(n >> leafShift)
	s := loadOrMake(&t.seg[k], func() *[]atomic.Pointer[leaf] {
		s := make([]atomic.Pointer[leaf], 1<<k)
		return &s
	})
	l := loadOrMake(&(*s)[i], func() *leaf { return new(leaf) })
	return loadOrMake(&l[n%leafLen], t.newPage)
}

func (t *table) newPage() *page {
	p := new(page)
	if t.huge {
		adviseHuge(p)
	}
	return p
}

func loadOrMake[T any](p *atomic.Pointer[T], mk func() *T) *T {
	for {
		if v := p.Load(); v != nil {
			return v
		}
		p.CompareAndSwap(nil, mk())
	}
}

func (t *table) drop(n uint64) {
	if l := t.leaf(n >> leafShift); l != nil {
		l[n%leafLen].Store(nil)
	}
}

// next finds the first present page from n on and before end.
func (t *table) next(n, end uint64) (uint64, *page) {
	for n < end {
		l := t.leaf(n >> leafShift)
		if l == nil {
			n = (n>>leafShift + 1) << leafShift
			continue
		}
		if p := l[n%leafLen].Load(); p != nil {
			return n, p
		}
		n++
	}
	return end, nil
}

// all yields the present pages in [n, end) in order.
func (t *table) all(n, end uint64) iter.Seq2[uint64, *page] {
	return func(yield func(uint64, *page) bool) {
		for {
			m, p := t.next(n, end)
			if p == nil || !yield(m, p) {
				return
			}
			n = m + 1
		}
	}
}

// read fills p from byte off on.
func (t *table) read(p []byte, off uint64) {
	for len(p) > 0 {
		in := off % pageSize
		n := min(uint64(len(p)), pageSize-in)
		if pg := t.get(off >> pageShift); pg != nil {
			pg.lock.rlock()
			copy(p[:n], pg.data[in:])
			pg.lock.runlock()
		} else {
			clear(p[:n])
		}
		p, off = p[n:], off+n
	}
}

// write stores p from byte off on.
func (t *table) write(p []byte, off uint64) {
	for len(p) > 0 {
		in := off % pageSize
		n := min(uint64(len(p)), pageSize-in)
		pg := t.need(off >> pageShift)
		pg.lock.lock()
		copy(pg.data[in:], p[:n])
		pg.lock.unlock()
		p, off = p[n:], off+n
	}
}

// zero makes bytes [off, end) read as zeroes. It drops pages that lie entirely in
// the range unless keep is set.
func (t *table) zero(off, end uint64, keep bool) {
	for n, pg := range t.all(off>>pageShift, (end+pageSize-1)>>pageShift) {
		first := n << pageShift
		from, to := max(off, first)-first, min(end, first+pageSize)-first
		if to-from == pageSize && !keep {
			t.drop(n)
			continue
		}
		pg.lock.lock()
		clear(pg.data[from:to])
		pg.lock.unlock()
	}
}

// clone copies the pages before byte end.
func (t *table) clone(to *table, end uint64) {
	for n, pg := range t.all(0, (end+pageSize-1)>>pageShift) {
		pg.lock.rlock()
		to.need(n).data = pg.data
		pg.lock.runlock()
	}
}
