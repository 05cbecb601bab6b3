package snapshot

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/target/internal/kcopyd"
)

// persistent is the store that outlives the table: see format.go.
//
// # Recording exceptions
//
// An exception is recorded in five steps. What a power cut after each of them
// leaves:
//
//  1. The data of the chunk is written to its new place. Nothing refers to it:
//     the chunk may be handed out again, the snapshot reads the origin, which
//     nobody has overwritten. (TestCrashAfterData)
//  2. The entry is put into the area in memory, behind those allocated before
//     it. No change on disk. Nothing is written while other exceptions are being
//     copied, unless the area is full: one write then records all of them.
//  3. If the area is full, the next one is zeroed. It is not reached by any list
//     yet. (TestCrashAfterZeroing)
//  4. The area is written with Preflush and FUA. The preflush makes steps 1 and
//     3 durable first, so an entry never refers to data that is not there, and
//     a full area is never without an end of the list behind it. A part of the
//     entries may be there: each of them is right by itself, because nothing
//     was overwritten yet that they protect. Entries behind a sector that did
//     not make it are beyond the end of the list and are wiped when the store
//     is opened. (TestCrashInAreaWrite)
//  5. The exceptions are reported: origin and snapshot are written to. The
//     entries are durable. (TestCrashAfterReport)
//
// # Merging
//
// Data is copied back and flushed by the caller; then the entries are zeroed in
// the area, which is written with Preflush and FUA: TestCrashInMerge. A power
// cut before repeats the copy.
//
// # Making and dropping
//
// A fresh store is zeroed up to the end of area 0, then the header is written
// with Preflush and FUA: without it there is no store, with it the list is
// empty (TestCrashInCreation). To drop a store the header is written again, with
// valid 0; nothing that the snapshot protects is overwritten before that is
// durable (TestCrashInDrop).
//
// Locks: mu is a leaf.
type persistent struct {
	env env.Env
	cow *dm.Dev
	dev *kcopyd.Dev
	kc  *kcopyd.Client // zeroes areas
	geometry
	writable bool
	unit     uint64 // bytes; an area is written in multiples of it
	flushes  bool   // FUA has to be made of flushes

	size     uint64        // sectors, as seen last; serialised with prepare
	nextFree atomic.Uint64 // written by prepare, and by merging, when nothing is prepared
	pending  atomic.Int64  // prepared, not taken into the area
	closing  atomic.Bool
	idle     env.Wait

	mu        sync.Mutex
	valid     bool          // guarded by mu; everything could be recorded until now
	queue     exceptionList // guarded by mu; committed, not taken into the area
	busy      bool          // guarded by mu; somebody runs the steps
	dropping  bool          // guarded by mu; the header is being written
	current   uint64        // guarded by mu; number of the area
	committed uint64        // guarded by mu; entries in it

	// The rest belongs to whoever set busy, to merging, or to open.
	area    []byte
	written uint64        // entries of the area that are on disk
	report  exceptionList // taken into the area, not reported
	stage   recordStage
	gate    atomic.Int32 // as in kcopyd: the I/O of a stage and its submitter
	zero    kcopyd.Job
	record  durable
	header  durable
}

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

const areaUnit = 4096

func newPersistent(e env.Env, cow *dm.Dev, chunk uint64, writable bool) *persistent {
	l := cow.Limits()
	p := &persistent{
		env: e, cow: cow, dev: kcopyd.Open(cow.Device), geometry: newGeometry(chunk), writable: writable,
		flushes: l.VolatileCache && !l.FUA, size: l.Size, idle: e.NewWait(), valid: true,
		kc: kcopyd.New(e, kcopyd.Options{Name: "snapshot-area"}),
	}
	p.nextFree.Store(firstFree)
	p.unit = max(areaUnit, uint64(l.LogicalBlock))
	p.zero.Done = func(j *kcopyd.Job) { p.stageDone(j.Failed()) }
	p.record.init(p, func(ok bool) { p.stageDone(!ok) })
	return p
}

func (p *persistent) use(cow *dm.Dev) { p.cow, p.dev = cow, kcopyd.Open(cow.Device) }

func (p *persistent) chunkSize() uint64 { return p.chunk }

func (p *persistent) kind(overflow bool) string {
	if overflow {
		return "PO"
	}
	return "P"
}

func (p *persistent) usage() (allocated, total, metadata uint64) {
	p.mu.Lock()
	current := p.current
	p.mu.Unlock()
	return p.nextFree.Load() * p.chunk, p.cow.Limits().Size, (current + 2) * p.chunk
}

func (p *persistent) prepare(e *exception) bool {
	n := p.nextFree.Load()
	if !roomFor(p.cow, &p.size, (n+1)*p.chunk) {
		return false
	}
	e.new = n
	p.nextFree.Store(p.skipArea(n + 1))
	p.pending.Add(1)
	return true
}

func (p *persistent) commit(e *exception, ok bool) {
	p.mu.Lock()
	if !ok {
		p.valid = false
	}
	p.queue.Push(e)
	busy := p.busy
	p.busy = true
	p.mu.Unlock()
	if !busy {
		p.run()
	}
}

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

func (p *persistent) drop(done func()) {
	p.mu.Lock()
	p.valid, p.dropping = false, true
	p.mu.Unlock()
	p.header.init(p, func(bool) {
		// A header that could not be written leaves the store valid on disk;
		// there is nothing left to try.
		done()
		p.mu.Lock()
		p.dropping = false
		p.mu.Unlock()
		p.idle.Wake()
	})
	p.header.write(p.headerBlock(false), 0)
}

// headerBlock is the first block of the store. The rest of the chunk is zeroes
// since it was made.
func (p *persistent) headerBlock(valid bool) []byte {
	block := make([]byte, min(p.unit, p.chunk*blk.SectorSize))
	header{valid, diskVersion, uint32(p.chunk)}.marshal(block)
	return block
}

func (p *persistent) close() {
	p.closing.Store(true)
	p.idle.Until(func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return !p.busy && !p.dropping
	})
	p.kc.Close()
}

// durable is a write that is on the medium when it is done, with everything that
// was completed before.
type durable struct {
	p          *persistent
	bio, flush blk.Bio
	done       func(ok bool)
}

func (d *durable) init(p *persistent, done func(ok bool)) {
	d.p, d.done = p, done
	d.bio.End = d.written
	d.flush.End = func(b *blk.Bio) { done(b.Status() == blk.OK) }
}

func (d *durable) write(data []byte, sector uint64) {
	b := &d.bio
	b.Rearm()
	b.Op, b.Flags, b.Sector = blk.Write, blk.Preflush|blk.FUA, sector
	b.SetData(data)
	d.p.dev.Submit(b)
}

func (d *durable) written(b *blk.Bio) {
	if b.Status() != blk.OK || !d.p.flushes {
		d.done(b.Status() == blk.OK)
		return
	}
	d.flush.Rearm()
	d.flush.Op = blk.Flush
	d.p.dev.Submit(&d.flush)
}
