package snapshot

import (
	"udm/blk"
	"udm/targets/internal/kcopyd"
)

// recordStage is where the recording of exceptions is.
//
//	         ┌──────────── all reported ◄──────────────┐
//	         ▼                                         │
//	collect ─┬─ area full ─► zeroing ─► writing ─► reporting
//	         └─ none in flight ───────►
type recordStage uint8

const (
	collect recordStage = iota
	zeroing
	writing
	reporting
)

// run goes through stages until one has to wait.
func (p *persistent) run() {
	for p.step() {
	}
}

// step runs one stage and reports whether the next can follow at once.
func (p *persistent) step() bool {
	if p.lacking && p.wait() {
		return false
	}
	switch p.stage {
	case collect:
		return p.collect()
	case zeroing:
		return p.startZeroing()
	case writing:
		return p.startWriting()
	}
	p.reportAll()
	return true
}

// collect takes committed exceptions into the area until it is time to write
// it. Without that it ends the run.
func (p *persistent) collect() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.queue.Pop(); e != nil; e = p.queue.Pop() {
		putEntry(p.area, p.committed, e.old, e.new)
		p.committed++
		p.report.Push(e)
		left := p.pending.Add(-1)
		if full := p.committed == p.perArea; left == 0 || full {
			p.stage = p.firstStageLocked(full)
			return true
		}
	}
	p.busy = false
	if p.closing.Load() {
		defer p.idle.Wake()
	}
	return false
}

func (p *persistent) firstStageLocked(full bool) recordStage {
	switch {
	case !p.valid:
		return reporting
	case full:
		return zeroing
	}
	return writing
}

// wait makes the stage that found no space run again later. If that cannot be,
// nothing more is recorded.
func (p *persistent) wait() bool {
	p.lacking = false
	p.stage = p.tried
	if p.park(p.run, nil) {
		return true
	}
	p.spoil()
	p.stage = reporting
	return false
}

// spoil takes note that something could not be recorded.
func (p *persistent) spoil() {
	p.mu.Lock()
	p.valid = false
	p.mu.Unlock()
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
		p.spoil()
	case p.tried == writing && p.unclear.Load() != nil:
		p.unclear.Store(nil) // endMerge has left it to this write
	}
	if p.gate.Add(-1) == 0 {
		p.run()
	}
}

// startZeroing zeroes the next area. One beyond the device's end fails, and the
// snapshot with it, as in the kernel.
func (p *persistent) startZeroing() bool {
	p.stage, p.tried = writing, zeroing
	chunk := p.areaChunk(p.current + 1)
	p.gate.Store(2)
	if (chunk+1)*p.chunk > p.cow.Limits().Size {
		p.stageDone(blk.IOErr)
	} else {
		p.zero.Sectors = p.chunk
		p.zero.SetTo(kcopyd.Place{Dev: p.dev, Sector: chunk * p.chunk})
		p.kc.Zero(&p.zero)
	}
	return p.gate.Add(-1) == 0
}

// startWriting writes the new entries of the area.
func (p *persistent) startWriting() bool {
	p.stage = reporting
	if !p.isValid() {
		return true
	}
	p.tried = writing
	p.gate.Store(2)
	p.record.write(p.entries(p.written, p.committed))
	return p.gate.Add(-1) == 0
}

func (p *persistent) isValid() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.valid
}

// entries is the part of the area that holds the entries from to to, in whole
// units, and its sector.
func (p *persistent) entries(from, to uint64) (data []byte, sector uint64) {
	a := from * entrySize / p.unit * p.unit
	b := min((to*entrySize+p.unit-1)/p.unit*p.unit, uint64(len(p.area)))
	return p.area[a:b], p.areaChunk(p.current)*p.chunk + a/blk.SectorSize
}

// leaveAreaLocked goes on to the next area if this one is full. Called with mu
// held.
func (p *persistent) leaveAreaLocked() {
	if p.committed == p.perArea {
		p.current++
		p.committed = 0
		clear(p.area)
	}
}

// reportAll tells every exception of this round how it went.
func (p *persistent) reportAll() {
	p.mu.Lock()
	ok := p.valid
	p.leaveAreaLocked()
	p.written = p.committed
	report := p.report.Take()
	p.mu.Unlock()
	for e := report.Pop(); e != nil; e = report.Pop() {
		e.done(ok)
	}
	p.stage = collect
}
