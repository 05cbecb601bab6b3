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

// stageDone ends an I/O and goes on, unless its submitter does.
func (p *persistent) stageDone(failed bool) {
	if failed {
		p.mu.Lock()
		p.valid = false
		p.mu.Unlock()
	}
	if p.gate.Add(-1) == 0 {
		p.run()
	}
}

// startZeroing zeroes the next area. One beyond the device's end fails, and the
// snapshot with it, as in the kernel.
func (p *persistent) startZeroing() bool {
	p.stage = writing
	chunk := p.areaChunk(p.current + 1)
	p.gate.Store(2)
	if (chunk+1)*p.chunk > p.cow.Limits().Size {
		p.stageDone(true)
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

// reportAll tells every exception of this round how it went.
func (p *persistent) reportAll() {
	p.mu.Lock()
	ok := p.valid
	if p.committed == p.perArea {
		p.current++
		p.committed = 0
		clear(p.area)
	}
	p.written = p.committed
	report := p.report.Take()
	p.mu.Unlock()
	for e := report.Pop(); e != nil; e = report.Pop() {
		e.done(ok)
	}
	p.stage = collect
}
