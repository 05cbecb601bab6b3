package snapshot

import "sync/atomic"

// record is an exception that is being recorded. Its owner is whoever reports that
// its data was copied. The record fills a cache line that nobody else writes to,
// unless the owner is late.
type record struct {
	state    atomic.Uint32 // one of the states below
	n        uint64        // number of the place
	old, new uint64
	e        *exception
	next     *record // link in the recorder's lists
	_        [16]byte
}

// The states of a record.
//
//	         ┌─► away ─┐            ┌─► left ─┐
//	copying ─┴─────────┴─► copied ──┴─────────┴─► recorded or lost
const (
	copying  uint32 = iota // the data is being submitted
	away                   // a device has the data; counted in persistent.away
	copied                 // the data is written; the owner will report the record
	left                   // the owner has left; the recorder will report it
	recorded               // durable
	lost                   // could not be recorded
)

// hasData reports whether the recorder may add the record to the area.
func (r *record) hasData() bool {
	st := r.state.Load()
	return st == copied || st == left
}

func (r *record) isOver() bool { return r.state.Load() >= recorded }

// batch is the records of consecutive places.
type batch struct {
	first   uint64
	records [batchLen]record
	next    atomic.Pointer[batch]
}

const batchLen = 64

// recordOf returns the record of place n, which has not been recorded yet. It creates
// the batches up to it.
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
