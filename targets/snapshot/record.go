package snapshot

import (
	"sync/atomic"

	"udm/blk"
	"udm/targets/internal/kcopyd"
)

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

// The recorder is the one that may write areas: whoever has made persistent.turn
// running. The word has one of these states, a bit, and behind them the number
// up to which there may be records with data.
const (
	idle     uint64 = iota // nobody is the recorder
	running                // a goroutine is at it
	inDevice               // an I/O of the recorder is under way, or waits for space
	states   = 3
	wanted   = 4 // somebody has come with a record while there was a recorder
	turnBits = 3
)

// enter brings record r. It reports whether the caller is the recorder now;
// otherwise the one that there is looks at r later.
func (p *persistent) enter(r *record) bool {
	for {
		t := p.turn.Load()
		upTo := max(t>>turnBits, r.n+1) << turnBits
		if t&states == idle {
			if p.turn.CompareAndSwap(t, upTo|running) {
				return true
			}
		} else if p.turn.CompareAndSwap(t, upTo|t&states|wanted) {
			return false
		}
	}
}

// resume makes the caller the recorder if one has stopped though it was wanted.
func (p *persistent) resume() bool {
	t := p.turn.Load()
	return t&(states|wanted) == idle|wanted && p.turn.CompareAndSwap(t, t&^(states|wanted)|running)
}

// release ends the recorder's turn, unless it is wanted: then it has to look
// again. In a hurry it does not; whoever called run does later.
func (p *persistent) release(hurry bool) bool {
	for {
		t := p.turn.Load()
		switch {
		case hurry:
			if p.turn.CompareAndSwap(t, t&^states|wanted) {
				return true
			}
		case t&wanted != 0:
			if p.turn.CompareAndSwap(t, t&^wanted) {
				return false
			}
		case p.turn.CompareAndSwap(t, t&^states):
			return true
		}
	}
}

// sent is called when the I/O of r's data was submitted. The data of a record that
// is still copying is away from now on.
func (p *persistent) sent(r *record) {
	if r.state.Load() == copying && r.state.CompareAndSwap(copying, away) {
		p.away.Add(1)
	}
}

// commit is called by the owner of e's record.
func (p *persistent) commit(e *exception, ok bool) {
	r := e.record
	if !ok {
		p.valid.Store(false)
	}
	if r.state.Swap(copied) == away {
		p.away.Add(-1)
	}
	reach(beforeEnter)
	owes := p.enter(r) && p.run()
	if p.stay(r) {
		e.done(r.state.Load() == recorded)
	}
	p.recordOwed(owes)
}

// patience is how often an owner looks whether its record is over. That takes about
// as long as to wake a goroutine on another processor. Whether there is still
// something to wait for is looked at once in a while: the answer is in a cache
// line that the recorder writes to.
const (
	patience = 32 * look
	look     = 256
)

// stay waits for r to be over as long as another goroutine is at it, or at the
// copy of a record in front of it. It reports false if it has left r to the
// recorder.
func (p *persistent) stay(r *record) bool {
	for n := 0; !r.isOver(); n++ {
		if n%look != 0 || n < p.patience && p.soon() {
			continue
		}
		reach(beforeLeave)
		if r.state.CompareAndSwap(copied, left) {
			return false
		}
	}
	return true
}

// soon tells whether records are being recorded without waiting for a device.
func (p *persistent) soon() bool {
	t := p.turn.Load() & states
	return t == running || t == idle && p.away.Load() <= 0
}

// recordOwed records what a turn that was ended in a hurry has left, unless another
// goroutine does.
func (p *persistent) recordOwed(owes bool) {
	for owes && p.resume() {
		owes = p.run()
	}
	if p.watched.Load() {
		p.idle.Wake()
	}
}

// goOn is run after an I/O, or after a wait for space.
func (p *persistent) goOn() {
	p.turn.Add(^uint64(0)) // running
	p.recordOwed(p.run())
}

// recordStage is what the recorder does next.
//
//	gather ─┬─ area full ──────────► zeroing ─► writing ─► reporting ─► gather
//	        ├─ nothing is away ───────────────►
//	        └─ else ─► released
type recordStage uint8

const (
	gather recordStage = iota
	zeroing
	writing
	reporting
)

// maxRounds bounds the writes that a recorder makes for others before it reports
// its own record.
const maxRounds = 3

// run goes through the stages until the turn is over or an I/O is under way. It
// reports whether the turn was ended in a hurry.
func (p *persistent) run() (owes bool) {
	for again := true; again; {
		again, owes = p.step()
	}
	return owes
}

// step runs one stage and reports whether the next can follow at once.
func (p *persistent) step() (again, owes bool) {
	if p.lacking && p.wait() {
		return false, false
	}
	switch p.stage {
	case gather:
		return p.gather()
	case zeroing:
		return p.startZeroing(), false
	case writing:
		return p.startWriting(), false
	}
	p.settle()
	return true, false
}

// gather puts records into the area until it is time to write it, or there are no
// more.
func (p *persistent) gather() (again, owes bool) {
	if p.rounds >= maxRounds {
		return p.end(true)
	}
	inDoubt := p.committed == p.perArea // endMerge has left a full area to be written
	r := p.gatherAll()
	switch {
	case inDoubt && r != nil:
		p.stage = writing
	case p.gathered.first == nil:
		return p.end(false)
	case !p.valid.Load():
		p.stage = reporting
	case p.committed == p.perArea:
		p.stage = zeroing
	case p.away.Load() > 0:
		return p.end(false)
	default:
		p.stage = writing
	}
	return true, false
}

// gatherAll takes records up to the first that has no data yet, as long as there
// is room in the area. It returns the first that has found none.
func (p *persistent) gatherAll() *record {
	for upTo := p.turn.Load() >> turnBits; p.next < upTo; p.next++ {
		r := p.recordOf(p.next)
		switch {
		case !r.hasData():
			return nil
		case p.committed == p.perArea:
			return r
		}
		putEntry(p.area, p.committed, r.old, r.new)
		p.gathered.push(r)
		p.committed++
	}
	return nil
}

// end ends the turn and reports the records without an owner, unless the turn is
// to go on.
func (p *persistent) end(hurry bool) (again, owes bool) {
	p.dropBatches()
	reach(beforeRelease)
	late, rounds := p.late, p.rounds
	p.late, p.rounds = recordList{}, 0
	if !p.release(hurry) {
		p.late, p.rounds = late, rounds
		return true, false
	}
	for r := late.first; r != nil; {
		next := r.next
		r.e.done(r.state.Load() == recorded)
		r = next
	}
	return false, hurry
}

// dropBatches forgets the batches before the next record.
func (p *persistent) dropBatches() {
	for b := p.oldest.Load(); p.next-b.first >= batchLen; b = p.oldest.Load() {
		p.recordOf(p.next) // makes what is behind b
		p.oldest.Store(b.next.Load())
	}
}

// recordList is a list of records in order.
type recordList struct{ first, last *record }

func (l *recordList) push(r *record) {
	r.next = nil
	if l.first == nil {
		l.first = r
	} else {
		l.last.next = r
	}
	l.last = r
}

// wait makes the stage that found no space run again later. If that cannot be,
// nothing more is recorded.
func (p *persistent) wait() bool {
	p.lacking = false
	p.stage = p.tried
	p.turn.Add(1) // inDevice
	if p.park(p.goOn, nil) {
		return true
	}
	p.turn.Add(^uint64(0))
	p.valid.Store(false)
	p.stage = reporting
	return false
}

func jobStatus(j *kcopyd.Job) blk.Status {
	if j.NoSpace {
		return blk.NoSpace
	}
	return outcome(j.Failed())
}

// stageDone ends an I/O and goes on, unless its submitter does.
func (p *persistent) stageDone(st blk.Status) {
	switch {
	case st == blk.NoSpace:
		p.lacking = true
	case st != blk.OK:
		p.valid.Store(false)
	case p.tried == writing && p.unclear.Load() != nil:
		p.unclear.Store(nil) // endMerge has left it to this write
	}
	if p.gate.Add(-1) == 0 {
		p.goOn()
	}
}

// submitted is the end of a stage that has submitted its I/O. It reports whether
// that is over already.
func (p *persistent) submitted() bool {
	if p.gate.Load() == 1 {
		return true
	}
	p.turn.Add(1) // inDevice
	if p.gate.Add(-1) > 0 {
		return false
	}
	p.turn.Add(^uint64(0))
	return true
}

// startZeroing zeroes the next area. One beyond the device's end fails, and the
// snapshot with it, as in the kernel.
func (p *persistent) startZeroing() bool {
	p.stage, p.tried = writing, zeroing
	chunk := p.areaChunk(p.current.Load() + 1)
	p.gate.Store(2)
	if (chunk+1)*p.chunk > p.cow.Limits().Size {
		p.stageDone(blk.IOErr)
	} else {
		p.zero.Sectors = p.chunk
		p.zero.SetTo(kcopyd.Place{Dev: p.dev, Sector: chunk * p.chunk})
		p.kc.Zero(&p.zero)
	}
	return p.submitted()
}

// startWriting writes the new entries of the area.
func (p *persistent) startWriting() bool {
	p.stage = reporting
	if !p.valid.Load() {
		return true
	}
	p.tried = writing
	p.gate.Store(2)
	p.writes.Get().(*durable).write(p.entries(p.written, p.committed))
	return p.submitted()
}

// entries is the part of the area that holds the entries from to to, in whole
// units, and its sector.
func (p *persistent) entries(from, to uint64) (data []byte, sector uint64) {
	a := from * entrySize / p.unit * p.unit
	b := min((to*entrySize+p.unit-1)/p.unit*p.unit, uint64(len(p.area)))
	return p.area[a:b], p.areaChunk(p.current.Load())*p.chunk + a/blk.SectorSize
}

// leaveArea goes on to the next area if this one is full.
func (p *persistent) leaveArea() {
	if p.committed == p.perArea {
		p.current.Add(1)
		p.committed = 0
		clear(p.area)
	}
	p.written = p.committed
}

// settle gives the gathered records their final state. Owners that stay see it;
// the others are reported at the end of the turn.
func (p *persistent) settle() {
	final := recorded
	if !p.valid.Load() {
		final = lost
	}
	p.leaveArea()
	p.stage = gather
	p.rounds++
	all := p.gathered
	p.gathered = recordList{}
	for r := all.first; r != nil; {
		next := r.next // before the owner sees it
		if r.state.Swap(final) == left {
			p.late.push(r)
		}
		r = next
	}
}
