package virtq

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// packedNotes is memory in which a queue of a packed ring records the chains that it has
// taken and not put back, as [splitNotes] does for a split one. It holds their descriptors
// as well, because used elements take their places in the ring. Little-endian:
//
//	header      features 8 (0), version 2 (2; 0: fresh), N 2, used position 2, next used position 2
//	N heads     in flight and put back (bits 0 and 1) 1, unused 1, descriptors 2, the first one saved 2, unused 2, counter 8
//	N saved     address 8, length 4, flags 2, the next one saved 2
//
// The steps, each a single store, and what the next device finds after a crash:
//
//	taken: descriptors, counter, in flight    taken again, in order of counters
//	put back: marked so                       taken again: the driver has not seen it
//	next used position                        if the ring's element at the used position is
//	                                          not used, the same
//	published: the first element's flags      it is used: what is put back is complete
//	heads cleared, used position              complete
//
// The element at the used position tells: before it is published it is part of a chain in
// flight, with the flags of an available one, or of what a driver has put there. Once it is
// published its flag "used" is the wrap counter, and stays so if the driver makes it
// available again in the next round.
//
// What the queue itself relies on is in its own memory: others may write to the record.
type packedNotes struct {
	header  *uint64
	entries []entry
	rest    []byte
	saved   [][]uint16 // by head: where its descriptors are saved
	free    []uint16   // places
}

const (
	wasPut     = 2
	linksShift = 16
	firstShift = 32
)

var errNotes = errors.New("the notes of requests in flight make no sense")

func newPackedNotes(mem []byte, size int) (*packedNotes, error) {
	header, entries, rest, err := notesOf(mem, size)
	f := &packedNotes{header: header, entries: entries, rest: rest, saved: make([][]uint16, size)}
	for i := range size {
		f.free = append(f.free, uint16(i))
	}
	return f, err
}

func (f *packedNotes) store(used, next position) {
	atomic.StoreUint64(f.header, packedVersion|uint64(len(f.entries))<<16|uint64(used)<<32|uint64(next)<<48)
}

// resume updates the record to a ring, and returns where its used elements go on and the
// heads in flight in the order in which they were taken. begin is where they go on if the
// record was not of this ring, which is fresh then: no device has used it, or it never had
// a record.
func (f *packedNotes) resume(begin position, untouched bool, published func(position) bool) (used position, heads []uint16, fresh bool, err error) {
	h := atomic.LoadUint64(f.header)
	if err := checkVersion(uint16(h)); err != nil {
		return 0, nil, false, err
	}
	used, next := position(h>>32), position(h>>48)
	if uint16(h) != packedVersion || int(uint16(h>>16)) != len(f.entries) || untouched && used != start {
		for i := range f.entries {
			atomic.StoreUint64(&f.entries[i].state, 0)
		}
		f.store(begin, begin)
		return begin, nil, true, nil
	}
	if used.index() >= len(f.entries) || next.index() >= len(f.entries) {
		return 0, nil, false, errNotes
	}
	done := used != next && published(used)
	f.finishBatch(done)
	if done {
		used = next
	}
	f.store(used, used)
	heads = inOrder(f.entries)
	return used, heads, false, f.recover(heads)
}

// finishBatch clears the heads that were put back, or has them in flight again.
func (f *packedNotes) finishBatch(done bool) {
	for i := range f.entries {
		switch s := atomic.LoadUint64(&f.entries[i].state); {
		case s&wasPut == 0:
		case done:
			atomic.StoreUint64(&f.entries[i].state, 0)
		default:
			atomic.StoreUint64(&f.entries[i].state, s&^wasPut)
		}
	}
}

// recover finds where the descriptors of heads are saved.
func (f *packedNotes) recover(heads []uint16) error {
	taken := make([]bool, len(f.entries))
	for _, head := range heads {
		s := atomic.LoadUint64(&f.entries[head].state)
		at := uint16(s >> firstShift)
		for n := uint16(s >> linksShift); n > 0; n-- {
			if int(at) >= len(taken) || taken[at] {
				return errNotes
			}
			taken[at] = true
			f.saved[head] = append(f.saved[head], at)
			at = binary.LittleEndian.Uint16(f.rest[16*int(at)+14:])
		}
		if len(f.saved[head]) == 0 {
			return errNotes
		}
	}
	f.free = f.free[:0]
	for i, t := range taken {
		if !t {
			f.free = append(f.free, uint16(i))
		}
	}
	return nil
}

// mark saves the descriptors of a chain and marks its head.
func (f *packedNotes) mark(head uint16, descs []descriptor, counter uint64) {
	n := len(f.free) - len(descs)
	places := append(f.saved[head][:0], f.free[n:]...)
	f.free, f.saved[head] = f.free[:n], places
	for i, d := range descs {
		d.next = places[min(i+1, len(places)-1)]
		d.put(f.rest, int(places[i]))
	}
	e := &f.entries[head]
	atomic.StoreUint64(&e.counter, counter)
	atomic.StoreUint64(&e.state, marked|uint64(len(descs))<<linksShift|uint64(places[0])<<firstShift)
}

// load appends the saved descriptors of a head to descs.
func (f *packedNotes) load(head uint16, descs []descriptor) []descriptor {
	for _, at := range f.saved[head] {
		descs = append(descs, descriptorAt(f.rest, int(at)))
	}
	return descs
}

func (f *packedNotes) put(head uint16) {
	places := f.saved[head]
	atomic.StoreUint64(&f.entries[head].state, marked|wasPut|uint64(len(places))<<linksShift|uint64(places[0])<<firstShift)
}

// publishing notes where used elements will go on after a batch.
func (f *packedNotes) publishing(used, next position) { f.store(used, next) }

// published completes a batch.
func (f *packedNotes) published(batch []putBack, used position) {
	for _, b := range batch {
		atomic.StoreUint64(&f.entries[b.head].state, 0)
		f.free = append(f.free, f.saved[b.head]...)
		f.saved[b.head] = f.saved[b.head][:0]
	}
	f.store(used, used)
}
