// Package smq is the stochastic multiqueue policy of caches
// (drivers/md/dm-cache-policy-smq.c): it says which blocks of the origin should be in
// the cache, and which of those should leave it or be written back.
//
// It does no I/O and has no lock: a [Policy] belongs to whoever holds the lock of its
// cache. It draws no random numbers, and time is handed in, so that it decides the
// same in each replay.
//
// # Queues
//
//	hotspot   regions of up to 16 blocks that were missed, by how often
//	clean     blocks of the cache that are equal to the origin's
//	dirty     blocks of the cache that have to be written back
//
// Each has 64 levels. An entry rises when it is hit, at most once in a period, and
// changes places with one of the level that it comes to. A missed block is promoted
// when the hot spot that it lies in has risen high enough; how high depends on how well
// the hot spots and the cache predict what is used. Clean blocks of the lower half are
// demoted until a quarter of the cache is free, and dirty ones are written back when
// the cache is idle. If only dirty blocks could be demoted, one is written back that was
// not written for a while: two sentinels in each level of the dirty queue take turns in
// going to its end every ten seconds.
//
// # Life of an entry
//
//	free ─ Lookup decides to promote ─► pending ─ Complete ─► clean or dirty
//	                                                            │  ▲
//	free ◄─ Complete (demotion) ──── pending ◄─ demote, write back ─┘
//
// A pending entry is in no queue, and the decision about it is not taken twice. One that
// is to be demoted or written back can be hit meanwhile.
package smq

import "time"

// Version is the policy's version in the superblock.
var Version = [3]uint32{2, 0, 0}

// HintSize is the number of bytes of a hint.
const HintSize = 4

const (
	writebackPeriod = 10 * time.Second
	hotspotPeriod   = time.Second
	cachePeriod     = 60 * time.Second

	freeTarget = 25 // percent of the cache that demotions keep free
	mostWork   = 4096
)

// Op is a kind of background work.
type Op uint8

const (
	Promote Op = iota
	Demote
	Writeback
)

func (op Op) String() string { return [...]string{"promote", "demote", "writeback"}[op] }

// Work is something to be done in the background, which [Policy.Complete] ends.
type Work struct {
	Op     Op
	OBlock uint64
	CBlock uint32
}

// Policy is the state of the policy of one cache.
type Policy struct {
	size       uint32
	migrations bool // promotions and demotions are allowed
	cleaner    bool // write back at all times

	es            entries
	sentinelsNow  bool // which of the two moved last
	hotspots      pool
	blocks        pool
	hotHits, hits bitset
	perHotspot    uint64 // blocks

	hotspot, clean, dirty queue
	hotRate, rate         rate
	hotTable, table       table

	readLevel, writeLevel uint8 // of a hot spot whose blocks are promoted
	jump                  int   // levels that a hot spot rises at a hit

	nextWriteback, nextHotspot, nextCache time.Duration

	work      []Work // queued
	promoting map[uint64]bool
	demoting  int // queued or under way
	atWork    int
}

// Options are what a policy is made for.
type Options struct {
	Blocks        uint32 // of the cache
	OriginSectors uint64
	BlockSectors  uint64
	NoMigrations  bool // nothing is promoted or demoted
	Cleaner       bool
	Now           time.Duration
}

// New returns the policy of an empty cache.
func New(o Options) *Policy {
	p := &Policy{size: o.Blocks, migrations: !o.NoMigrations && !o.Cleaner, cleaner: o.Cleaner, jump: 1,
		readLevel: levels, writeLevel: levels, nextWriteback: o.Now + writebackPeriod, nextHotspot: o.Now, nextCache: o.Now,
		promoting: map[uint64]bool{}}
	hot := max(o.Blocks/4, 1024)
	p.perHotspot = 16
	for p.perHotspot > 1 && p.perHotspot*o.BlockSectors*uint64(hot) > o.OriginSectors {
		p.perHotspot /= 2
	}
	const sentinels = 2 * levels
	p.es = make(entries, sentinels+int(hot)+int(o.Blocks))
	p.hotspots = newPool(p.es, sentinels, sentinels+int32(hot))
	p.blocks = newPool(p.es, sentinels+int32(hot), int32(len(p.es)))
	p.hotHits, p.hits = newBitset(int(hot)), newBitset(int(o.Blocks))
	p.hotspot.init(p.es)
	p.clean.init(p.es)
	p.dirty.init(p.es)
	p.hotspot.top = 8
	p.hotspot.inTop = int(min(uint64(hot)/levels, uint64(o.Blocks)/p.perHotspot))
	p.table, p.hotTable = newTable(p.es, int(o.Blocks)), newTable(p.es, int(hot))
	for i := int32(sentinels - 1); i >= 0; i-- { // those that move first are in front
		p.es[i].sentinel, p.es[i].level = true, uint8(i%levels)
		p.dirty.push(i)
	}
	return p
}

// sentinel returns the sentinel of a level that moves next, or the other one.
func (p *Policy) sentinel(level uint8, next bool) int32 {
	if next == p.sentinelsNow {
		return int32(level)
	}
	return levels + int32(level)
}

func (p *Policy) cblock(i int32) uint32 { return uint32(i - p.blocks.begin) }
func (p *Policy) index(cb uint32) int32 { return p.blocks.begin + int32(cb) }

func (p *Policy) queueOf(i int32) *queue {
	if p.es[i].dirty {
		return &p.dirty
	}
	return &p.clean
}

// Lookup tells where a block of the origin is in the cache. For one that is not there
// it may decide to promote it: fast says that the caller would do that at once, with a
// write that makes a copy unnecessary or the block's old content uninteresting. Then
// start has the work, which is the caller's, otherwise queued says that there is work
// for Next.
func (p *Policy) Lookup(oblock uint64, write, fast bool) (cb uint32, hit bool, start *Work, queued bool) {
	if i := p.table.find(oblock); i != none {
		p.rate.accessed(p.es[i].level)
		p.used(i)
		return p.cblock(i), true, nil, false
	}
	p.rate.misses++
	level := p.missed(oblock)
	if !p.worth(level, write, fast) || !p.migrations {
		return 0, false, nil, false
	}
	start = p.promote(oblock, fast)
	return 0, false, start, true
}

// Holds reports whether a block of the origin is in the cache. It is no use of the block.
func (p *Policy) Holds(oblock uint64) bool { return p.table.find(oblock) != none }

func (p *Policy) worth(level uint8, write, fast bool) bool {
	if write {
		return fast && !p.blocks.empty() || level >= p.writeLevel
	}
	return level >= p.readLevel
}

// used moves an entry up, once in a period.
func (p *Policy) used(i int32) {
	e := &p.es[i]
	switch {
	case e.pending, p.hits.set(i - p.blocks.begin):
	case e.dirty:
		p.dirty.requeue(i, 1, [2]int32{p.sentinel(e.level, true), p.sentinel(e.level, false)})
	default:
		p.clean.requeue(i, 1, [2]int32{none, none})
	}
}

// missed notes a miss in the hot spots and returns the level of the block's one.
func (p *Policy) missed(oblock uint64) uint8 {
	spot := oblock / p.perHotspot
	i := p.hotTable.find(spot)
	if i != none {
		p.hotRate.accessed(p.es[i].level)
		extra := p.jump
		if p.hotHits.set(i - p.hotspots.begin) {
			extra = 0
		}
		p.hotspot.requeue(i, extra, [2]int32{none, none})
		return p.es[i].level
	}
	p.hotRate.misses++
	if i = p.hotspots.alloc(); i == none {
		i = p.hotspot.peek(levels, true)
		p.hotspot.remove(i)
		p.hotTable.remove(i)
		p.hotHits.unset(i - p.hotspots.begin)
	}
	p.es[i].oblock = spot
	p.hotspot.push(i)
	p.hotTable.insert(i)
	return p.es[i].level
}

// promote reserves a block of the cache. If none is free, one is made free instead.
func (p *Policy) promote(oblock uint64, fast bool) *Work {
	switch {
	case p.blocks.empty():
		if !p.freeEnough() {
			p.demote()
		}
		return nil
	case p.promoting[oblock], p.atWork == mostWork:
		return nil
	}
	i := p.blocks.alloc()
	p.es[i].pending = true
	w := Work{Promote, oblock, p.cblock(i)}
	p.promoting[oblock] = true
	p.atWork++
	if fast {
		return &w
	}
	p.work = append(p.work, w)
	return nil
}

func (p *Policy) freeEnough() bool {
	free := int(p.size) - p.blocks.used
	return free+p.demoting >= int(uint64(p.size)*freeTarget/100)
}

func (p *Policy) demote() {
	i := p.clean.peek(levels/2, true)
	if i == none {
		if !p.cleanEnough(true) {
			p.writeBack(false)
		}
		return
	}
	if p.begin(Demote, i, &p.clean) {
		p.demoting++
	}
}

// writeBack queues the oldest dirty block; unless idle one that was not written for a
// while.
func (p *Policy) writeBack(idle bool) {
	if i := p.dirty.peek(levels, idle); i != none {
		p.begin(Writeback, i, &p.dirty)
	}
}

func (p *Policy) begin(op Op, i int32, q *queue) bool {
	if p.atWork == mostWork {
		return false
	}
	q.remove(i)
	p.es[i].pending = true
	p.atWork++
	p.work = append(p.work, Work{op, p.es[i].oblock, p.cblock(i)})
	return true
}

// cleanEnough reports whether nothing has to be written back now.
func (p *Policy) cleanEnough(idle bool) bool { return !idle && !p.cleaner || p.dirty.n == 0 }

// Next returns the next work for the background. Idle says that the cache is not used
// and blocks may be written back.
func (p *Policy) Next(idle bool) (w Work, ok bool) {
	if len(p.work) == 0 && !p.cleanEnough(idle) {
		p.writeBack(idle || p.cleaner)
	}
	if len(p.work) == 0 {
		return w, false
	}
	w = p.work[0]
	p.work = p.work[1:]
	return w, true
}

// StopMigrations stops promotions and demotions. Works that are queued remain.
func (p *Policy) StopMigrations() { p.migrations = false }

// Complete ends a work.
func (p *Policy) Complete(w Work, success bool) {
	i := p.index(w.CBlock)
	e := &p.es[i]
	e.pending = false
	p.atWork--
	switch {
	case w.Op == Promote:
		delete(p.promoting, w.OBlock)
		if !success {
			p.blocks.release(i)
			return
		}
		e.oblock, e.level = w.OBlock, levels-1
		p.table.insert(i)
	case w.Op == Demote:
		p.demoting--
		if success {
			p.table.remove(i)
			p.blocks.release(i)
			return
		}
	}
	p.queueOf(i).push(i)
}

// Load tells of a block that was in the cache before. hint is what Hint has returned
// then; ok is false if that is not known.
func (p *Policy) Load(oblock uint64, cb uint32, dirty bool, hint uint32, ok bool) {
	i := p.index(cb)
	p.blocks.take(i)
	e := &p.es[i]
	e.oblock, e.dirty = oblock, dirty
	e.level = uint8(cb*0x61c88647>>23) % levels
	if ok {
		e.level = uint8(min(hint, levels-1))
	}
	p.table.insert(i)
	p.queueOf(i).pushFront(i)
}

// SetDirty tells whether a block of the cache differs from the origin's.
func (p *Policy) SetDirty(cb uint32, dirty bool) {
	i := p.index(cb)
	if p.es[i].pending {
		p.es[i].dirty = dirty
		return
	}
	p.queueOf(i).remove(i)
	p.es[i].dirty = dirty
	p.queueOf(i).push(i)
}

// Invalidate takes a block out of the cache, if it is there and nothing is being done
// with it.
func (p *Policy) Invalidate(cb uint32) bool {
	i := p.index(cb)
	e := &p.es[i]
	if !e.allocated || e.pending {
		return false
	}
	p.queueOf(i).remove(i)
	p.table.remove(i)
	p.blocks.release(i)
	return true
}

// Mapped returns the block of the origin that a block of the cache holds.
func (p *Policy) Mapped(cb uint32) (oblock uint64, ok bool) {
	e := &p.es[p.index(cb)]
	return e.oblock, e.allocated && p.table.find(e.oblock) == p.index(cb)
}

// Hint is what to save of a block for Load.
func (p *Policy) Hint(cb uint32) uint32 {
	e := &p.es[p.index(cb)]
	if !e.allocated {
		return 0
	}
	return uint32(e.level)
}

// Resident is the number of blocks of the cache that are in use or reserved.
func (p *Policy) Resident() int { return p.blocks.used }
