package kcopyd

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Tally counts what is under way, and how much of something it uses, without
// that processors meet: each has a [Shard]. Init makes it ready.
type Tally struct {
	used   atomic.Int64 // with what the shards keep in reserve
	shards []Shard
	tokens sync.Pool // *Shard: deals out shards by processor
	dealt  atomic.Uint32
}

// Shard is one processor's part of a [Tally]. It fills a pair of cache lines.
type Shard struct {
	begun, ended atomic.Int64
	spare        atomic.Int64 // given back, but not to Tally.used
	_            [104]byte
}

// Init makes t ready for use.
func (t *Tally) Init() {
	t.shards = make([]Shard, runtime.GOMAXPROCS(0)*2)
	t.tokens.New = t.newToken
}

func (t *Tally) newToken() any { return &t.shards[int(t.dealt.Add(1))%len(t.shards)] }

// Pick deals out shards: the same one as long as the caller stays on its
// processor.
func (t *Tally) Pick() *Shard {
	sh := t.tokens.Get().(*Shard)
	t.tokens.Put(sh)
	return sh
}

// Begin counts a thing that is under way until End is called on the shard that it
// returns: sh, or another one if another processor uses that.
func (t *Tally) Begin(sh *Shard) *Shard {
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

// Idle reports whether nothing was under way at some moment of the call. Ends
// are counted before begins, so what begins or ends meanwhile is not missed.
func (t *Tally) Idle() bool {
	var n int64
	for i := range t.shards {
		n += t.shards[i].ended.Load()
	}
	for i := range t.shards {
		n -= t.shards[i].begun.Load()
	}
	return n == 0
}

// Take counts n as used; Give to the same shard undoes it. A shard keeps what
// was given last for the next Take of as much.
func (t *Tally) Take(sh *Shard, n int64) {
	if !sh.spare.CompareAndSwap(n, 0) {
		t.used.Add(n)
	}
}

// TakeUpTo is Take if no more than limit is used then.
func (t *Tally) TakeUpTo(limit int64, sh *Shard, n int64) bool {
	if sh.spare.CompareAndSwap(n, 0) || t.used.Add(n) <= limit {
		return true
	}
	t.used.Add(-n)
	return false
}

// Give undoes Take.
func (t *Tally) Give(sh *Shard, n int64) {
	if !sh.spare.CompareAndSwap(0, n) {
		t.used.Add(-n)
	}
}

// Over reports whether more than limit is used. Who gives something back and
// then looks who waits for it, and who begins to wait and then calls Over, do not
// miss each other.
func (t *Tally) Over(limit int64) bool {
	if t.used.Load() <= limit {
		return false
	}
	t.Reclaim()
	return t.used.Load() > limit
}

// Used is how much is used.
func (t *Tally) Used() int64 {
	t.Reclaim()
	return t.used.Load()
}

// Reclaim takes away what the shards keep.
func (t *Tally) Reclaim() {
	for i := range t.shards {
		if sh := &t.shards[i]; sh.spare.Load() != 0 {
			t.used.Add(-sh.spare.Swap(0))
		}
	}
}
