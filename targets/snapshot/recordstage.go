package snapshot

import (
	"udm/blk"
	"udm/targets/internal/kcopyd"
)

// recordStage is the recorder's next step.
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

// maxRounds bounds the writes that a recorder makes for others before it reports its
// own record.
const maxRounds = 3

// run runs stages until the turn is over or an I/O is in flight. It reports whether
// the turn was ended in a hurry.
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

// gather adds records to the area until it is time to write it or there are no more.
func (p *persistent) gather() (again, owes bool) {
	if p.rounds >= maxRounds {
		return p.end(true)
	}
	inDoubt := p.committed == p.perArea // endMerge may have left a full area to be written
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

// gatherAll adds records up to the first without data, as far as the area has room.
// It returns the first record that did not fit.
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

// end ends the turn and reports the records without an owner, unless the turn
// continues.
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

// dropBatches drops the batches before the next record.
func (p *persistent) dropBatches() {
	for b := p.oldest.Load(); p.next-b.first >= batchLen; b = p.oldest.Load() {
		p.recordOf(p.next) // creates the batch after b
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

// wait repeats the stage that found no space later. If that is impossible, nothing
// more is recorded.
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

// stageDone ends an I/O and continues, unless its submitter will.
func (p *persistent) stageDone(st blk.Status) {
	switch {
	case st == blk.NoSpace:
		p.lacking = true
	case st != blk.OK:
		p.valid.Store(false)
	case p.tried == writing && p.unclear.Load() != nil:
		p.unclear.Store(nil) // endMerge left it to this write
	}
	if p.gate.Add(-1) == 0 {
		p.goOn()
	}
}

// submitted is called at the end of a stage that submitted I/O. It reports whether
// the I/O is complete already.
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

// startZeroing zeroes the next area. If that lies beyond the end of the device the
// zeroing fails and the snapshot becomes invalid, as in the kernel.
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

// entries returns the part of the area with entries from up to to, in whole units,
// and its sector.
func (p *persistent) entries(from, to uint64) (data []byte, sector uint64) {
	a := from * entrySize / p.unit * p.unit
	b := min((to*entrySize+p.unit-1)/p.unit*p.unit, uint64(len(p.area)))
	return p.area[a:b], p.areaChunk(p.current.Load())*p.chunk + a/blk.SectorSize
}

// leaveArea moves to the next area if this one is full.
func (p *persistent) leaveArea() {
	if p.committed == p.perArea {
		p.current.Add(1)
		p.committed = 0
		clear(p.area)
	}
	p.written = p.committed
}

// settle gives the gathered records their final state. Waiting owners see it; records
// without an owner are reported at the end of the turn.
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
		next := r.next // read before the owner sees the record
		if r.state.Swap(final) == left {
			p.late.push(r)
		}
		r = next
	}
}
