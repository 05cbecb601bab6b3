package dm

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/env"
	"udm/internal/list"
)

// Device is a mapped device (the kernel's struct mapped_device). It is a
// blk.Device: Submit maps bios through the live table.
//
// Life of a bio:
//
//	Submit ─ live table and nothing odd ────────────► split ► Map ► lower device
//	   │                                                ▲
//	   └─ suspended, no table, or barriers at work ─► deferred ─ worker ┘
type Device struct {
	env     env.Env
	control *Control
	number  Number

	// fast is the live table while bios may be mapped inline: nil when there is
	// none, while the device is suspended, and while barriers are in order.
	// Written under mu. Submitters count themselves in flight first and look
	// second; who stores nil looks at the counts afterwards.
	fast     atomic.Pointer[Table]
	draining atomic.Int32 // how many wait for in-flight I/O to end
	shards   []shard
	tokens   sync.Pool     // *shard: deals out shards by processor
	dealt    atomic.Uint32 // shards dealt out so far

	noflushing atomic.Bool // a noflush suspend is under way; written under mu
	noDiscard  atomic.Bool // a lower device turned out not to do it
	noZeroes   atomic.Bool
	stats      atomic.Pointer[statsRef] // nil: no region
	lastWrite  atomic.Bool              // the I/O that was counted last was no read

	queue       env.Queue
	work        *env.Work // processDeferred
	requeueWork *env.Work // requeuePieces
	drained     env.Wait  // wakes when the in-flight count may have become 0
	events      env.Wait  // wakes at each event

	// ctl serialises load, suspend, resume, swap and destroy. Held while waiting.
	ctl *env.Mutex

	mu       sync.Mutex
	state    state                    // guarded by mu
	live     *Table                   // guarded by mu
	limits   blk.Limits               // guarded by mu; of the live table
	deferred blk.List                 // guarded by mu; FIFO
	flushed  list.List[piece, *piece] // guarded by mu; their preflush is done, their data not sent
	requeued list.List[piece, *piece] // guarded by mu; LIFO
	barrier  barrier                  // guarded by mu
	eventNr  uint32                   // guarded by mu

	lowerMu sync.Mutex
	lowers  []*lower // guarded by lowerMu; what the tables have open

	loading *env.Mutex  // serialises Load
	typed   atomic.Bool // a table has been loaded before; written under loading

	// What dm-ioctl.c keeps beside a device; all guarded by control.mu.
	name, uuid     string
	inactive       *Table
	readOnly       bool
	deferredRemove bool
	opens          int
}

// shard counts I/O in flight for the pieces that are used on one processor. It
// fills a pair of cache lines so that processors do not share any.
type shard struct {
	n atomic.Int64
	_ [120]byte
}

// pickShard deals out counters: the same one as long as the caller stays on its
// processor, but for the one to avoid (nil for none).
func (d *Device) pickShard(avoid *shard) *shard {
	sh := d.tokens.Get().(*shard)
	if sh == avoid {
		sh = d.newToken().(*shard)
	}
	d.tokens.Put(sh)
	return sh
}

func (d *Device) newToken() any {
	return &d.shards[int(d.dealt.Add(1))%len(d.shards)]
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

// count counts p in flight. Pieces come to other processors with the goroutines
// that hold them, and stay there; where two processors meet at a counter, one
// takes another.
func (p *piece) count() {
	n := p.shard.n.Load()
	if !p.shard.n.CompareAndSwap(n, n+1) {
		p.shard = p.dev.pickShard(p.shard)
		p.shard.n.Add(1)
	}
}

// leave undoes enter.
func (d *Device) leave(sh *shard) {
	sh.n.Add(-1)
	if d.draining.Load() != 0 {
		d.drained.Wake()
		d.queue.Queue(d.work)
	}
}

// idleLocked reports whether nothing is in flight. It means something only
// while fast is nil: then the count of pieces only falls, except under a hold,
// which is in the first shard and so is seen first, and which is taken with mu
// held. Called with mu held.
func (d *Device) idleLocked() bool {
	for i := range d.shards {
		if d.shards[i].n.Load() != 0 {
			return false
		}
	}
	return true
}

// Submit maps b through the live table, or keeps it until there is one.
func (d *Device) Submit(b *blk.Bio) {
	t := d.fast.Load()
	if t == nil || b.Op > blk.Write || b.Flags&(blk.Preflush|blk.Barrier) != 0 {
		d.submitSlowly(b)
		return
	}
	d.splitAndMap(t, b)
}

// splitAndMap sends a read or write piece by piece. The table is looked at
// again for each piece: the rest of a bio goes through the table that is live
// when its turn comes, or waits among the deferred bios for one.
func (d *Device) splitAndMap(t *Table, b *blk.Bio) {
	for {
		ti := t.find(b.Sector)
		if ti == nil {
			b.Complete(blk.IOErr)
			return
		}
		p := ti.get()
		if !d.enter(p, t) {
			p.put()
			d.submitSlowly(b)
			return
		}
		if !p.start1(b, ti.pieceLen(b)) {
			return
		}
	}
}

// start1 maps the first n sectors of b, moves b past them, and reports whether
// there are more.
func (p *piece) start1(b *blk.Bio, n uint64) (more bool) {
	p.orig, p.sectors = b, n
	p.Clone.CloneFrom(b)
	if p.dev.stats.Load() != nil {
		p.beginStats()
	}
	if more = n < b.Sectors; more {
		p.cut(b, n)
	}
	if p.target.mayAccept(p.Clone.Sector, n) {
		return p.startPartial(b, more)
	}
	p.run()
	return more
}

// cut makes p the first n sectors of b, which lives on as what comes after.
func (p *piece) cut(b *blk.Bio, n uint64) {
	p.split, p.pos = true, b.Position()
	p.Clone.Sectors = n
	b.Hold()
	b.Advance(n)
}

// startPartial keeps one completion of b for what Map may leave.
func (p *piece) startPartial(b *blk.Bio, more bool) bool {
	if !more {
		p.cut(b, p.sectors)
	}
	left := p.runPartial()
	if left > 0 {
		b.Rewind(left)
	}
	if more || left > 0 {
		return true
	}
	b.Complete(blk.OK)
	return false
}

// Limits are those of the live table; a device without one has size 0.
func (d *Device) Limits() blk.Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.limits
	if d.noDiscard.Load() {
		l.MaxDiscard, l.DiscardGranularity = 0, 0
	}
	if d.noZeroes.Load() {
		l.MaxWriteZeroes = 0
	}
	return l
}

// Number is the device's major and minor number.
func (d *Device) Number() Number { return d.number }

// disable stops offering an op that a lower device said it would do and did not.
func (d *Device) disable(op blk.Op) {
	switch op {
	case blk.Discard:
		d.noDiscard.Store(true)
	case blk.WriteZeroes:
		d.noZeroes.Store(true)
	}
}
