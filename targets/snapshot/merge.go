package snapshot

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// merge copies the exceptions of a snapshot back to the origin, the last ones first,
// until none is left.
//
//	         ┌─────────────────────────── next run of chunks ──────────────────────────┐
//	         ▼                                                                         │
//	find the last run in the store ─ none left, or stopped ─► end                      │
//	         ▼                                                                         │
//	make exceptions in the other snapshots, wait for them ◄─┐                          │
//	         ▼                                └─ some made ─┘                          │
//	claim the run: writes to it wait; wait for those in flight                         │
//	         ▼                                                                         │
//	copy it to the origin ─► flush the origin ─► clear it in the store ─► release bios ─┘
//	         └──────────────────────┴───────────────────┴─ error ─► failed, end
//
// An error stops the merge with the status "Merge failed". The snapshot continues to
// work, and a resume starts with the same run again. If clearing the run failed, the
// next start may see either copy, so writes to the run fail until it is cleared or,
// in a table of type snapshot, recorded again; the store remembers the run for the
// next table. (The kernel writes to the COW device and may lose the write.) A crash
// at any point only repeats the copy of the run: entries are cleared after the origin
// is flushed, and nobody writes to the run in between. A lack of space repeats the
// run as well: see shortage.go.
type merge struct {
	s      *snapshot
	queue  env.Queue
	work   *env.Work // round
	retry  *env.Work // protect
	wait   env.Wait
	job    kcopyd.Job
	flush  blk.Bio
	sector uint64 // first sector of the run in the origin; owned by the round
	length uint64 // sectors

	mu       sync.Mutex
	running  bool         // guarded by mu
	shutdown bool         // guarded by mu; stop before the next round
	first    uint64       // guarded by mu; first chunk of the claimed run
	count    uint64       // guarded by mu; chunks in it, 0 for none
	queued   dm.CloneList // guarded by mu; writes that wait for the run
	unclear  bool         // guarded by mu; the store may or may not have the run: writes to it fail
}

func newMerge(s *snapshot, e env.Env) *merge {
	m := &merge{s: s, queue: e.NewQueue("snapshot-merge"), wait: e.NewWait()}
	m.work, m.retry = env.NewWork(m.round), env.NewWork(m.protect)
	m.job.Done = m.copied
	m.flush.End = m.flushed
	return m
}

// start starts merging unless it is already running.
func (m *merge) start() {
	m.mu.Lock()
	begin := !m.running
	m.running = true
	m.mu.Unlock()
	if begin {
		m.queue.Queue(m.work)
	}
}

// stop waits for the end of the current round and reports whether there was one.
func (m *merge) stop() bool {
	m.mu.Lock()
	was := m.running
	m.shutdown = true
	m.mu.Unlock()
	m.s.space.tryNow()
	m.wait.Until(func() bool { return !m.isRunning() })
	m.mu.Lock()
	m.shutdown = false
	m.mu.Unlock()
	return was
}

func (m *merge) isRunning() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running
}

func (m *merge) end() {
	m.mu.Lock()
	m.running = false
	m.mu.Unlock()
	m.wait.Wake()
}

func (m *merge) round() {
	m.mu.Lock()
	stop := m.shutdown
	m.mu.Unlock()
	if stop || !m.s.has(flagValid) {
		m.leave()
		return
	}
	m.s.body.Load().store.merger().prepareMerge(m.found)
}

func (m *merge) found(old, new, n uint64, err error) {
	switch {
	case err != nil:
		m.fail("the store cannot be read: " + err.Error())
	case n == 0:
		m.end()
	default:
		m.aim(old+1-n, new+1-n, n)
	}
}

// aim sets the run of the round: n chunks from old in the origin and from new in the
// COW device.
func (m *merge) aim(old, new, n uint64) {
	s := m.s
	b := s.body.Load()
	m.sector = old << b.shift
	m.length = s.clip(m.sector, n<<b.shift)
	if m.length == 0 {
		m.fail("the store has a chunk beyond the origin")
		return
	}
	m.job.From = kcopyd.Place{Dev: s.cowDev, Sector: new << b.shift}
	m.job.SetTo(kcopyd.Place{Dev: s.originDev, Sector: m.sector})
	m.job.Sectors = m.length
	m.job.Private = [2]uint64{old, n}
	m.protect()
}

// protect makes the other snapshots copy what the merge will overwrite.
func (m *merge) protect() {
	g := m.s.group
	step := max(1, g.members.Load().boundary)
	waits := false
	for at := m.sector; at < m.sector+m.length; at += step {
		w := originWrite{sector: at, wake: m.protected, held: true, waits: waits}
		waits = g.reallocate(&w) || waits
	}
	if !waits {
		m.claim()
	}
}

// protected is called when one of the exceptions started by protect is complete.
func (m *merge) protected() { m.queue.Queue(m.retry) }

// claim holds back writes to the run and waits for those in flight.
func (m *merge) claim() {
	run := m.job.Private.([2]uint64)
	m.mu.Lock()
	m.first, m.count, m.unclear = run[0], run[1], false
	m.mu.Unlock()
	var left atomic.Int64
	left.Store(1)
	drained := func() {
		if left.Add(-1) == 0 {
			m.s.kc.Copy(&m.job)
		}
	}
	for c := m.first; c < m.first+m.count; c++ {
		left.Add(1)
		if m.s.tracked.drain(c, drained) {
			left.Add(-1)
		}
	}
	drained()
}

func (m *merge) copied(j *kcopyd.Job) {
	if j.NoSpace && m.waitForSpace() {
		return
	}
	if j.Failed() {
		m.fail("a copy to the origin failed")
		return
	}
	m.flush.Rearm()
	m.flush.Op = blk.Flush
	m.s.originDev.Submit(&m.flush)
}

func (m *merge) flushed(b *blk.Bio) {
	if b.Status() != blk.OK {
		m.fail("the origin could not be flushed")
		return
	}
	m.s.body.Load().store.merger().commitMerge(m.count, m.cleared)
}

// cleared removes the exceptions of the run, from last to first, and starts the next
// round.
func (m *merge) cleared(err error) {
	if err == blk.NoSpace && m.waitForSpace() {
		return
	}
	if err != nil {
		m.mu.Lock()
		m.unclear = true
		m.mu.Unlock()
	}
	if err != nil || !m.forget() {
		m.fail("merged chunks could not be cleared in the store")
		return
	}
	bios := m.unclaim()
	for c := bios.Pop(); c != nil; c = bios.Pop() {
		c.Issue()
	}
	m.queue.Queue(m.work)
}

// waitForSpace repeats the round later. Writes to its run wait until then.
func (m *merge) waitForSpace() bool {
	again := func() { m.queue.Queue(m.work) }
	return m.s.space.park(again, func() {
		m.mu.Lock()
		bios := m.queued.Take()
		m.mu.Unlock()
		failAll(bios)
		again()
	})
}

// leave ends a merge that is to stop, possibly in a round that waits for space.
func (m *merge) leave() {
	m.mu.Lock()
	m.unclear = m.count > 0 && m.s.body.Load().store.merger().doubt().n > 0
	unclear := m.unclear
	m.mu.Unlock()
	bios := m.unclaim()
	if unclear {
		failAll(bios)
	}
	for c := bios.Pop(); c != nil; c = bios.Pop() {
		finishMap(c, m.s.target.Mapper().Map(c))
	}
	m.end()
}

// inherit takes over a run whose clearing failed in the previous table.
func (m *merge) inherit(d mergedRun) {
	m.mu.Lock()
	m.first, m.count, m.unclear = d.old+1-d.n, d.n, d.n > 0
	m.mu.Unlock()
}

// forget removes the run from the table. It is an error if a chunk is in the store
// but not in the table.
func (m *merge) forget() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.s.body.Load().complete
	for c := m.first + m.count; c > m.first; c-- {
		if !t.remove(c - 1) {
			return false
		}
	}
	return true
}

// unclaim returns the writes that waited for the run, redirected to the origin.
func (m *merge) unclaim() dm.CloneList {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.unclear {
		m.first, m.count = 0, 0
	}
	return m.queued.Take()
}

func (m *merge) fail(reason string) {
	m.s.set(flagMergeFailed, 0)
	m.s.target.Log().Error("merge failed and has stopped", "reason", reason)
	bios := m.unclaim()
	for c := bios.Pop(); c != nil; c = bios.Pop() {
		c.Complete(blk.IOErr)
	}
	m.end()
}
