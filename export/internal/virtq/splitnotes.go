package virtq

import (
	"errors"
	"sync/atomic"
)

// splitNotes is memory in which a queue records the chains that it has taken and not put
// back. It outlives the device, so that the next device can start with those chains. The
// layout is that of vhost-user (version 1), little-endian:
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
type splitNotes struct {
	header  *uint64
	entries []entry
}

const linkShift = 48

func newSplitNotes(mem []byte, size int) (*splitNotes, error) {
	header, entries, _, err := notesOf(mem, size)
	return &splitNotes{header, entries}, err
}

// notes is the header without the features.
type notes struct{ version, n, last, used uint16 }

func (f *splitNotes) load() notes {
	h := atomic.LoadUint64(f.header)
	return notes{uint16(h), uint16(h >> 16), uint16(h >> 32), uint16(h >> 48)}
}

func (f *splitNotes) store(h notes) {
	atomic.StoreUint64(f.header, uint64(h.version)|uint64(h.n)<<16|uint64(h.last)<<32|uint64(h.used)<<48)
}

// resume updates the record to a ring whose used index is used. It returns the heads
// in flight in the order in which they were taken. fresh means that the record was
// not of this ring, and has been initialized.
func (f *splitNotes) resume(used uint16, size int) (heads []uint16, fresh bool, err error) {
	h := f.load()
	if err := checkVersion(h.version); err != nil {
		return nil, false, err
	}
	if h.version != splitVersion || int(h.n) != len(f.entries) || int(used-h.used) > size {
		for i := range f.entries {
			atomic.StoreUint64(&f.entries[i].state, 0)
		}
		f.store(notes{splitVersion, uint16(len(f.entries)), 0, used})
		return nil, true, nil
	}
	for head := h.last; h.used != used; h.used++ {
		if int(head) >= size {
			return nil, false, errors.New("the notes of requests in flight make no sense")
		}
		head = f.unmark(head)
	}
	f.store(h)
	return inOrder(f.entries[:min(size, len(f.entries))]), false, nil
}

func (f *splitNotes) mark(head uint16, counter uint64) {
	e := &f.entries[head]
	atomic.StoreUint64(&e.counter, counter)
	atomic.StoreUint64(&e.state, marked)
}

// link makes head, which is still marked, the last one put back.
func (f *splitNotes) link(head uint16) {
	h := f.load()
	atomic.StoreUint64(&f.entries[head].state, marked|uint64(h.last)<<linkShift)
	h.last = head
	f.store(h)
}

// unmark unmarks a head and returns the one put back before it.
func (f *splitNotes) unmark(head uint16) uint16 {
	e := &f.entries[head]
	link := atomic.LoadUint64(&e.state) >> linkShift
	atomic.StoreUint64(&e.state, link<<linkShift)
	return uint16(link)
}

// published completes a batch of linked heads after the ring's index was set to used.
func (f *splitNotes) published(batch []uint16, used uint16) {
	for _, head := range batch {
		f.unmark(head)
	}
	h := f.load()
	h.used = used
	f.store(h)
}
