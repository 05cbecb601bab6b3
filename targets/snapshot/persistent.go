package snapshot

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
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
//  3. If the area is full, the next one is zeroed, and takes its space. It is not
//     reached by any list yet. (TestCrashAfterZeroing)
//  4. The area is written with Preflush and FUA. The preflush makes steps 1 and
//     3 durable first, so an entry never refers to data that is not there, and
//     a full area is never without an end of the list behind it. A part of the
//     entries may be there: each of them is right by itself, because nothing
//     was overwritten yet that they protect. Entries behind a sector that did
//     not make it are beyond the end of the list and are wiped when the store
//     is opened. (TestCrashInAreaWrite)
//     A write that finds no space below is made again, with the same entries.
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
	// park keeps something for when there is space below again.
	park func(again, giveUp func()) bool
	kc   *kcopyd.Client // zeroes areas
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
	tried   recordStage  // that does or did I/O
	lacking bool         // it found no space
	gate    atomic.Int32 // as in kcopyd: the I/O of a stage and its submitter
	zero    kcopyd.Job
	record  durable
	header  durable
	unclear atomic.Pointer[mergedRun] // nil: none; written by merging
}

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
	p.zero.NoUnmap = true
	p.zero.Done = func(j *kcopyd.Job) { p.stageDone(jobStatus(j)) }
	p.record.init(p, p.stageDone)
	return p
}

func (p *persistent) use(cow *dm.Dev, park func(again, giveUp func()) bool) {
	p.cow, p.dev, p.park = cow, kcopyd.Open(cow.Device), park
}

func (p *persistent) ordered() bool { return true }

func (p *persistent) chunkSize() uint64 { return p.chunk }

func (p *persistent) persistent() bool { return true }

func (p *persistent) usage() (allocated, total, metadata uint64) {
	p.mu.Lock()
	current := p.current
	p.mu.Unlock()
	return p.nextFree.Load() * p.chunk, p.cow.Limits().Size, (current + 2) * p.chunk
}

func (p *persistent) prepare(e *exception, where uint64) bool {
	n := p.nextFree.Load()
	if where != anywhere && where != n || !roomFor(p.cow, &p.size, (n+1)*p.chunk) {
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

func (p *persistent) drop(done func()) {
	p.mu.Lock()
	p.valid, p.dropping = false, true
	p.mu.Unlock()
	p.header.init(p, func(blk.Status) {
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
