package snapshot

import (
	"runtime"
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// persistent is the store that is kept on the COW device: see format.go.
//
// # Recording exceptions
//
// An exception has one number, which determines its place among the data chunks, its
// position in the list, and its record (record.go). Numbers go up one by one, so the
// list on disk is in order of allocation, whichever copy ends first. The records
// whose data is copied, up to the first whose is not, are added to the area in memory
// and written together, by one goroutine at a time; records that arrive meanwhile
// wait in their batches for the next write. An exception is recorded in five steps.
// After a power cut:
//
//  1. The data of the chunk is written to its new place. No entry refers to it: the
//     chunk may be allocated again, and the snapshot reads the origin, which has not been
//     overwritten. (TestCrashAfterData)
//  2. The entry is added to the area in memory, behind those allocated before it.
//     Nothing changes on disk. The area is not written while a device is still writing
//     the data of other exceptions, unless it is full: one write then records all of
//     them.
//  3. If the area is full, the next one is zeroed, which also allocates its space. No
//     list reaches it yet. (TestCrashAfterZeroing)
//  4. The area is written with Preflush and FUA. The preflush makes steps 1 and 3
//     durable first, so an entry never refers to missing data, and a full area always has
//     an end of the list behind it. If only some of the entries reach the disk, each is
//     valid by itself, because nothing that they protect has been overwritten yet.
//     Entries behind a sector that did not reach the disk are beyond the end of the list;
//     they are cleared when the store is opened. (TestCrashInAreaWrite) A write that
//     finds no space below is repeated with the same entries.
//  5. The exceptions are reported: origin and snapshot may be written. The entries are
//     durable. (TestCrashAfterReport)
//
// # Merging
//
// The caller copies the data back and flushes it. Then the entries are zeroed in the
// area, which is written with Preflush and FUA: TestCrashInMerge. After a power cut
// before that, the copy is repeated.
//
// # Creating and dropping
//
// A new store is zeroed up to the end of area 0, then the header is written with
// Preflush and FUA: without the header there is no store, with it the list is empty
// (TestCrashInCreation). To drop a store the header is written again with valid 0;
// nothing that the snapshot protects is overwritten before that is durable
// (TestCrashInDrop).
//
// # Opening
//
// What a store says when it is opened may be in the cache of its disk only: the process
// that wrote it was killed before its flush. So the first origin write flushes the store,
// and waits for that. After a power cut before it, the origin has not been written.
// (TestWhatWasReadIsDurable)
//
// It has no lock: the recorder owns its data.
type persistent struct {
	env  env.Env
	cow  *dm.Dev
	room room
	dev  *kcopyd.Dev
	// park queues a retry for when there is space below again.
	park func(again, giveUp func()) bool
	kc   *kcopyd.Client // zeroes areas
	geometry
	writable bool
	found    bool   // open has found a store
	unit     uint64 // bytes; areas are written in multiples of it
	flushes  bool   // the device has no FUA: use flushes
	patience int    // see soon

	valid    atomic.Bool // nothing has failed to be recorded
	dropping atomic.Bool // the header is being written
	watched  atomic.Bool // somebody waits for the turn to become idle
	away     atomic.Int32
	idle     env.Wait
	header   durable
	writes   sync.Pool                 // *durable, for areas
	unclear  atomic.Pointer[mergedRun] // in doubt after a failed merge step; nil: none; written by merging
	current  atomic.Uint64             // number of the area; written under the turn
	newest   atomic.Pointer[batch]     // a hint where to search
	area     []byte
	zero     kcopyd.Job // of the next area

	_    [64]byte
	free atomic.Uint64 // number of the next place; every exception increments it
	_    [56]byte

	*recorder
}

// recorder is the state used by whoever has the turn: see record.go. Merging and open
// use it, too. It fills a pair of cache lines.
type recorder struct {
	turn      atomic.Uint64         // who is the recorder
	oldest    atomic.Pointer[batch] // of the next record, or an earlier one
	next      uint64                // number of the first record not gathered
	committed uint64                // entries in the area
	written   uint64                // entries on disk
	gathered  recordList            // in the area, not settled

	stage   recordStage  // the next
	tried   recordStage  // the one that does or did I/O
	lacking bool         // it found no space
	rounds  uint8        // writes in this turn
	gate    atomic.Int32 // as in kcopyd: counts the I/O of a stage and its submitter
	late    recordList   // settled, to be reported by the recorder
	_       [48]byte
}

const areaUnit = 4096

func newPersistent(e env.Env, cow *dm.Dev, chunk uint64, writable bool) *persistent {
	l := cow.Limits()
	p := &persistent{
		env: e, geometry: newGeometry(chunk), writable: writable,
		flushes: l.VolatileCache && !l.FUA, idle: e.NewWait(), recorder: &recorder{},
		kc: kcopyd.New(e, kcopyd.Options{Name: "snapshot-area"}),
	}
	if runtime.GOMAXPROCS(0) > 1 {
		p.patience = patience
	}
	p.valid.Store(true)
	p.unit = max(areaUnit, uint64(l.LogicalBlock))
	p.zero.NoUnmap = true
	p.zero.Done = func(j *kcopyd.Job) { p.stageDone(jobStatus(j)) }
	p.writes.New = p.newWrite
	p.reach(cow)
	p.startAt(0)
	return p
}

// newWrite creates a write of an area. Each processor has its own.
func (p *persistent) newWrite() any {
	d := &durable{}
	d.init(p, func(st blk.Status) {
		p.writes.Put(d)
		p.stageDone(st)
	})
	return d
}

// reach directs I/O to cow.
func (p *persistent) reach(cow *dm.Dev) {
	p.cow, p.dev = cow, kcopyd.Open(cow.Device)
	p.room.init(cow)
}

func (p *persistent) use(cow *dm.Dev, park func(again, giveUp func()) bool) {
	p.quiesce()
	p.reach(cow)
	p.park = park
}

// quiesce waits until nobody records. No exception may be left to record.
func (p *persistent) quiesce() {
	p.watched.Store(true)
	p.idle.Until(func() bool { return p.turn.Load()&states == idle && !p.dropping.Load() })
	p.watched.Store(false)
}

// startAt makes n the next place to be allocated. Nothing may be left to record.
func (p *persistent) startAt(n uint64) {
	b := &batch{first: n}
	p.oldest.Store(b)
	p.newest.Store(b)
	p.free.Store(n)
	p.turn.Store(n << turnBits)
	p.next = n
}

func (p *persistent) chunkSize() uint64 { return p.chunk }

func (p *persistent) persistent() bool { return true }

func (p *persistent) usage() (allocated, total, metadata uint64) {
	return p.dataChunk(p.free.Load()) * p.chunk, p.cow.Limits().Size, (p.current.Load() + 2) * p.chunk
}

func (p *persistent) prepare(e *exception, where uint64) bool {
	n, ok := p.takePlace(where)
	if !ok {
		return false
	}
	r := p.recordOf(n)
	e.new, e.record = p.dataChunk(n), r
	r.n, r.old, r.new, r.e = n, e.old, e.new, e
	return true
}

// takePlace allocates the number of a place. Without room for it the number is given
// back, after those behind it are, too, or have turned out to have room.
func (p *persistent) takePlace(where uint64) (n uint64, ok bool) {
	if where != anywhere {
		n = p.dataNumber(where)
		return n, p.dataChunk(n) == where && p.hasPlace(n) && p.free.CompareAndSwap(n, n+1)
	}
	n = p.free.Add(1) - 1
	for !p.hasPlace(n) {
		if p.free.CompareAndSwap(n+1, n) {
			return 0, false
		}
	}
	return n, true
}

func (p *persistent) hasPlace(n uint64) bool { return p.room.has((p.dataChunk(n) + 1) * p.chunk) }

func (p *persistent) drop(done func()) {
	p.valid.Store(false)
	p.dropping.Store(true)
	p.header.init(p, func(blk.Status) {
		// If the header cannot be written, the store stays valid on disk; there is
		// nothing left to try.
		done()
		p.dropping.Store(false)
		p.idle.Wake()
	})
	p.header.write(p.headerBlock(false), 0)
}

// headerBlock is the first block of the store. The rest of the chunk was zeroed when
// the store was created.
func (p *persistent) headerBlock(valid bool) []byte {
	block := make([]byte, min(p.unit, p.chunk*blk.SectorSize))
	header{valid, diskVersion, uint32(p.chunk)}.marshal(block)
	return block
}

func (p *persistent) close() {
	p.quiesce()
	p.kc.Close()
}
