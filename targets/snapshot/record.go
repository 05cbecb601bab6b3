package snapshot

import "sync/atomic"

// record is an exception on its way to the disk. Its owner is whoever brings the
// news that the data has arrived. Nobody else writes to the cache line that it
// fills, unless the owner is late.
type record struct {
	state    atomic.Uint32 // how far it is
	n        uint64        // number of the place
	old, new uint64
	e        *exception
	next     *record // link of the recorder's lists
	_        [16]byte
}

// The states of a record.
//
//	         ┌─► away ─┐            ┌─► left ─┐
//	copying ─┴─────────┴─► copied ──┴─────────┴─► recorded or lost
const (
	copying  uint32 = iota // whoever sends the data is still at it
	away                   // a device has the data; counted in persistent.away
	copied                 // the data has arrived; the owner will report it
	left                   // the recorder will, as the owner has gone
	recorded               // durable
	lost                   // could not be recorded
)

// hasData tells whether the recorder may put the record into the area.
func (r *record) hasData() bool {
	st := r.state.Load()
	return st == copied || st == left
}

func (r *record) isOver() bool { return r.state.Load() >= recorded }

// batch is the records of places that follow one another.
type batch struct {
	first   uint64
	records [batchLen]record
	next    atomic.Pointer[batch]
}

const batchLen = 64

// recordOf returns the record of place n, which is not recorded yet. It makes the
// batches up to there.
func (p *persistent) recordOf(n uint64) *record {
	b := p.newest.Load()
	if n < b.first {
		b = p.oldest.Load()
	}
	for n-b.first >= batchLen {
		next := b.next.Load()
		if next == nil {
			b.next.CompareAndSwap(nil, &batch{first: b.first + batchLen})
			next = b.next.Load()
		}
		p.newest.CompareAndSwap(b, next)
		b = next
	}
	return &b.records[n-b.first]
}
