package dm

import (
	"sync"
	"sync/atomic"
)

// inFlight counts the pieces in flight, by processor.
type inFlight struct {
	// fast is the live table while bios may be mapped inline. It is nil if there is
	// none, while the device is suspended, and while older bios wait for their
	// turn. Written under mu. A submitter counts its piece in flight first and
	// reads fast second; a suspend stores nil first and reads the counts second.
	fast     atomic.Pointer[Table]
	draining atomic.Int32 // number of waiters for in-flight I/O to end
	shards   []shard
	tokens   sync.Pool     // *shard: deals out shards by processor
	dealt    atomic.Uint32 // shards dealt out so far
}

// shard counts the pieces in flight that are used on one processor. It fills a pair
// of cache lines, so that processors share none.
type shard struct {
	n  atomic.Int64
	io atomic.Pointer[ioCounters] // nil: nothing was accounted here
	_  [112]byte
}

func (f *inFlight) init(shards int) {
	f.shards = make([]shard, shards)
	f.tokens.New = f.newToken
}

// pickShard returns a counter other than avoid, which may be nil. A caller gets the
// same one again as long as it stays on its processor.
func (f *inFlight) pickShard(avoid *shard) *shard {
	sh := f.tokens.Get().(*shard)
	if sh == avoid {
		sh = f.newToken().(*shard)
	}
	f.tokens.Put(sh)
	return sh
}

func (f *inFlight) newToken() any {
	return &f.shards[int(f.dealt.Add(1))%len(f.shards)]
}

// enter counts a piece in flight and reports whether t is still the table to map
// it with; if not, the piece is not counted.
func (d *Device) enter(p *piece, t *Table) bool {
	p.count()
	if d.fast.Load() == t {
		return true
	}
	d.leave(p.shard)
	return false
}

// count counts p in flight. Pieces move to other processors with the goroutines that
// hold them, and stay in their pools; if two processors meet at one counter, the
// piece takes another one.
func (p *piece) count() {
	p.dev.reach(beforeCount)
	n := p.shard.n.Load()
	if !p.shard.n.CompareAndSwap(n, n+1) {
		p.shard = p.dev.pickShard(p.shard)
		p.shard.n.Add(1)
	}
}

// leave undoes enter. It wakes waiters, so it is never called with mu held.
func (d *Device) leave(sh *shard) {
	sh.n.Add(-1)
	if d.draining.Load() != 0 {
		d.drained.Wake()
		d.queue.Queue(d.send)
	}
}

// holdLocked counts one bio in flight while mu is held, so that a suspend that
// begins afterwards sees it. leave undoes it.
func (d *Device) holdLocked() *shard {
	sh := &d.shards[0]
	sh.n.Add(1)
	return sh
}

// idleLocked reports whether nothing is in flight. The answer is reliable only while
// fast is nil: then the counts of pieces only fall, except under a hold, which is
// taken with mu held and counts in the first shard, which is read first.
func (d *Device) idleLocked() bool {
	for i := range d.shards {
		if d.shards[i].n.Load() != 0 {
			return false
		}
	}
	return true
}

func (d *Device) idleNow() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.idleLocked()
}
