package dm

import (
	"sync/atomic"
	"time"

	"udm/blk"
)

// statusRequeue is the status of a piece that its target has pushed back. It never
// leaves the package.
const statusRequeue = blk.Status(255)

// piece is a part of an original bio that goes to one target, or all of it, and
// the first clone that carries it (the kernel's struct dm_io). Pieces belong to
// their target's pool; the pool is local to a processor, and so is the counter
// that a piece uses for I/O in flight.
type piece struct {
	Clone // its target is the piece's
	dev   *Device
	shard *shard // counts the piece while it is in flight; see count
	orig  *blk.Bio

	// split: orig has more pieces than this one. pos and sectors are the range of
	// this piece, which orig has advanced past.
	split   bool
	flush   bool // this is the flush phase of orig, which may carry data
	pos     blk.Position
	sectors uint64

	// parts counts what must end before the piece ends, if that is more than its
	// own clone; else it is 0. status collects their statuses.
	parts  atomic.Int32
	status atomic.Uint32

	stats   *statsRef // the regions that count the piece; nil: none
	start   time.Duration
	traced  uint64 // number of the piece in traces
	entered bool   // counted as in flight
	merged  bool   // counted as merged
	next    *piece // link of slots.requeued and slots.flushed
}

func (p *piece) Link() **piece { return &p.next }

// newPiece makes a piece for the pool of ti.
func newPiece(ti *Target) *piece {
	p := &piece{dev: ti.table.dev}
	p.shard = p.dev.pickShard(nil)
	p.Clone.init(p, ti)
	return p
}

func (c *Clone) init(p *piece, ti *Target) {
	c.target, c.piece = ti, p
	c.end = c.ended
	c.Bio.End = c.end
	if ti.core.hooks.perIO != nil {
		c.PerIO = ti.core.hooks.perIO.NewPerIO()
	}
}

func (ti *Target) get() *piece { return ti.core.pieces.Get().(*piece) }

func (p *piece) put() {
	p.orig, p.Clone.Dev, p.Clone.Bufs, p.Clone.Tags = nil, nil, nil, nil
	p.split, p.flush, p.stats = false, false, nil
	p.target.core.pieces.Put(p)
}

// run maps the piece's one clone. The piece may be gone when it returns.
func (p *piece) run() { p.Clone.run() }

// run maps a clone and acts on the outcome.
func (c *Clone) run() {
	switch c.target.core.mapper.Map(c) {
	case Remapped:
		c.Issue()
	case Requeue:
		c.refused(statusRequeue)
	case Kill:
		c.refused(blk.IOErr)
	}
}

// refused ends a clone that the target did not take. If it is the piece's own
// clone, statistics do not count the piece.
func (c *Clone) refused(st blk.Status) {
	if p := c.piece; p.stats != nil && c == &p.Clone {
		p.dropStats(st)
	}
	c.piece.cloneDone(st)
}

// ended is the End of every clone.
func (c *Clone) ended(*blk.Bio) {
	st := c.Status()
	if h := c.target.core.hooks.endIO; h != nil {
		var out EndOutcome
		if st, out = h.EndIO(c, st); out == EndIncomplete {
			return
		} else if out == EndRequeue {
			st = statusRequeue
		}
	}
	if st == blk.Target {
		c.piece.dev.disable(c.Op)
		st = blk.NotSupported
	}
	c.piece.cloneDone(st)
}

func (p *piece) cloneDone(st blk.Status) {
	if p.parts.Load() == 0 {
		p.complete(st)
		return
	}
	p.partDone(st)
}

// partDone ends one part, and completes the piece after the last one.
func (p *piece) partDone(st blk.Status) {
	p.addStatus(st)
	if p.parts.Add(-1) == 0 {
		p.complete(blk.Status(p.status.Load()))
	}
}

// addStatus keeps the last error. But a push-back is not replaced while a noflush
// suspend is under way: the whole piece is then sent again.
func (p *piece) addStatus(st blk.Status) {
	for st != blk.OK {
		old := p.status.Load()
		if blk.Status(old) == statusRequeue && p.dev.noflushing.Load() {
			return
		}
		if p.status.CompareAndSwap(old, uint32(st)) {
			return
		}
	}
}

// complete ends the piece once all its parts have ended.
func (p *piece) complete(st blk.Status) {
	if st != blk.OK {
		if st == statusRequeue {
			p.requeue()
			return
		}
		p.accountFailure(st)
	}
	d, sh, orig := p.dev, p.shard, p.orig
	if p.stats != nil {
		p.endStats(st)
	}
	if p.flush && orig.Op != blk.Flush && orig.Sectors > 0 && st == blk.OK {
		d.afterFlush(p)
		return
	}
	p.put()
	orig.Complete(st)
	d.leave(sh)
}
