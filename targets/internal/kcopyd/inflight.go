package kcopyd

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// InFlight counts operations in flight and the resources that they use. Each
// processor has a [Shard], so that processors share no counter. Call Init before use.
type InFlight struct {
	used   atomic.Int64 // including what the shards keep spare
	shards []Shard
	tokens sync.Pool // *Shard: deals out shards by processor
	dealt  atomic.Uint32
}

// Shard is one processor's part of [InFlight]. It fills a pair of cache lines.
type Shard struct {
	begun, ended atomic.Int64
	spare        atomic.Int64 // given back, but still counted in InFlight.used
	_            [104]byte
}

// Init makes t ready for use.
func (t *InFlight) Init() {
	t.shards = make([]Shard, runtime.GOMAXPROCS(0)*2)
	t.tokens.New = t.newToken
}

func (t *InFlight) newToken() any { return &t.shards[int(t.dealt.Add(1))%len(t.shards)] }

// Pick returns a shard, the same one as long as the caller stays on its
// processor.
func (t *InFlight) Pick() *Shard {
	sh := t.tokens.Get().(*Shard)
	t.tokens.Put(sh)
	return sh
}

// Begin counts an operation as in flight until End is called on the returned shard:
// sh, or another one if another processor uses sh.
func (t *InFlight) Begin(sh *Shard) *Shard {
	n := sh.begun.Load()
	if sh.begun.CompareAndSwap(n, n+1) {
		return sh
	}
	other := t.tokens.Get().(*Shard)
	if other == sh {
		other = t.newToken().(*Shard)
	}
	t.tokens.Put(other)
	other.begun.Add(1)
	return other
}

// End undoes Begin.
func (sh *Shard) End() { sh.ended.Add(1) }

// Idle reports whether nothing was in flight at some moment of the call. It counts
// ends before begins, so it misses nothing that begins or ends meanwhile.
func (t *InFlight) Idle() bool {
	var n int64
	for i := range t.shards {
		n += t.shards[i].ended.Load()
	}
	for i := range t.shards {
		n -= t.shards[i].begun.Load()
	}
	return n == 0
}

// Take counts n as used; Give on the same shard undoes it. A shard keeps the last
// amount given for the next Take of the same amount.
func (t *InFlight) Take(sh *Shard, n int64) {
	if !sh.spare.CompareAndSwap(n, 0) {
		t.used.Add(n)
	}
}

// TakeUpTo is Take, if that leaves no more than limit in use.
func (t *InFlight) TakeUpTo(limit int64, sh *Shard, n int64) bool {
	if sh.spare.CompareAndSwap(n, 0) || t.used.Add(n) <= limit {
		return true
	}
	t.used.Add(-n)
	return false
}

// Give undoes Take.
func (t *InFlight) Give(sh *Shard, n int64) {
	if !sh.spare.CompareAndSwap(0, n) {
		t.used.Add(-n)
	}
}

// Over reports whether more than limit is in use. A caller that gives and then
// checks for waiters, and one that registers as a waiter and then calls Over,
// cannot miss each other.
func (t *InFlight) Over(limit int64) bool {
	if t.used.Load() <= limit {
		return false
	}
	t.Reclaim()
	return t.used.Load() > limit
}

// Used is the amount in use.
func (t *InFlight) Used() int64 {
	t.Reclaim()
	return t.used.Load()
}

// Reclaim frees the amounts that the shards keep.
func (t *InFlight) Reclaim() {
	for i := range t.shards {
		if sh := &t.shards[i]; sh.spare.Load() != 0 {
			t.used.Add(-sh.spare.Swap(0))
		}
	}
}
