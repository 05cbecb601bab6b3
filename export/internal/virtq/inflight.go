package virtq

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"
)

// Inflight is memory in which a queue records the chains that it has taken and not
// put back. It outlives the device, so that the next device can start with those
// chains. The layout is that of vhost-user (version 1), little-endian:
//
//	header      features 8 (0), version 2 (0: fresh), N 2, the last head put back 2, used index 2
//	N entries   in flight 1, unused 5, previous head put back 2, counter 8
//
// The steps, each a single store, and what the next device finds after a crash:
//
//	taken: counter, then in flight      taken again, in order of counters
//	put back: linked to the last one    taken again: the driver has not seen it
//	published: the ring's used index    it differs from the header's by the number of
//	                                    heads to unmark, from the last one backwards
//	unmarked, then the header's index   complete
type Inflight struct {
	header  *uint64
	entries []entry
}

// entry is the record of a head: a word with mark and link, and the counter.
type entry struct{ state, counter uint64 }

const (
	marked          = 1
	linkShift       = 48
	inflightVersion = 1
)

// InflightLen is the length in bytes of the memory for a ring of n entries.
func InflightLen(n int) int { return (16 + 16*n + 63) &^ 63 }

// NewInflight uses mem as the record for a ring of at most n entries.
func NewInflight(mem []byte, n int) (*Inflight, error) {
	if n <= 0 || n > MaxSize || len(mem) < 16+16*n || address(mem)%8 != 0 {
		return nil, fmt.Errorf("%d bytes to note %d requests in flight: too short, or not aligned", len(mem), n)
	}
	p := unsafe.Pointer(&mem[0])
	return &Inflight{(*uint64)(unsafe.Add(p, 8)), unsafe.Slice((*entry)(unsafe.Add(p, 16)), n)}, nil
}

// notes is the header without the features.
type notes struct{ version, n, last, used uint16 }

func (f *Inflight) load() notes {
	h := atomic.LoadUint64(f.header)
	return notes{uint16(h), uint16(h >> 16), uint16(h >> 32), uint16(h >> 48)}
}

func (f *Inflight) store(h notes) {
	atomic.StoreUint64(f.header, uint64(h.version)|uint64(h.n)<<16|uint64(h.last)<<32|uint64(h.used)<<48)
}

// resume updates the record to a ring whose used index is used. It returns the heads
// in flight in the order in which they were taken. fresh means that the record was
// not of this ring, and has been initialized.
func (f *Inflight) resume(used uint16, size int) (heads []uint16, fresh bool, err error) {
	h := f.load()
	if h.version > inflightVersion {
		return nil, false, fmt.Errorf("requests in flight are noted in version %d", h.version)
	}
	if h.version == 0 || int(h.n) != len(f.entries) || int(used-h.used) > size {
		for i := range f.entries {
			atomic.StoreUint64(&f.entries[i].state, 0)
		}
		f.store(notes{inflightVersion, uint16(len(f.entries)), 0, used})
		return nil, true, nil
	}
	for head := h.last; h.used != used; h.used++ {
		if int(head) >= size {
			return nil, false, errors.New("the notes of requests in flight make no sense")
		}
		head = f.unmark(head)
	}
	f.store(h)
	return f.marked(size), false, nil
}

// marked returns the heads in flight in order of their counters.
func (f *Inflight) marked(size int) (heads []uint16) {
	for i := range min(size, len(f.entries)) {
		if atomic.LoadUint64(&f.entries[i].state)&marked != 0 {
			heads = append(heads, uint16(i))
		}
	}
	counter := make(map[uint16]uint64)
	for _, h := range heads {
		counter[h] = atomic.LoadUint64(&f.entries[h].counter)
	}
	slices.SortStableFunc(heads, func(a, b uint16) int { return cmp.Compare(counter[a], counter[b]) })
	return heads
}

// lastCounter is the highest counter of heads, which are ordered.
func (f *Inflight) lastCounter(heads []uint16) uint64 {
	if len(heads) == 0 {
		return 0
	}
	return atomic.LoadUint64(&f.entries[heads[len(heads)-1]].counter)
}

func (f *Inflight) mark(head uint16, counter uint64) {
	e := &f.entries[head]
	atomic.StoreUint64(&e.counter, counter)
	atomic.StoreUint64(&e.state, marked)
}

// link makes head, which is still marked, the last one put back.
func (f *Inflight) link(head uint16) {
	h := f.load()
	atomic.StoreUint64(&f.entries[head].state, marked|uint64(h.last)<<linkShift)
	h.last = head
	f.store(h)
}

// unmark unmarks a head and returns the one put back before it.
func (f *Inflight) unmark(head uint16) uint16 {
	e := &f.entries[head]
	link := atomic.LoadUint64(&e.state) >> linkShift
	atomic.StoreUint64(&e.state, link<<linkShift)
	return uint16(link)
}

// published completes a batch of linked heads after the ring's index was set to used.
func (f *Inflight) published(batch []uint16, used uint16) {
	for _, head := range batch {
		f.unmark(head)
	}
	h := f.load()
	h.used = used
	f.store(h)
}
