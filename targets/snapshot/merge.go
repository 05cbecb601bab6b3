package snapshot

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// merge copies the exceptions of a snapshot back to the origin, the last ones
// first, until none is left.
//
//	         ┌─────────────────────────── next run of chunks ──────────────────────────┐
//	         ▼                                                                         │
//	find the last run in the store ─ none left, or stopped ─► end                      │
//	         ▼                                                                         │
//	make exceptions in the other snapshots, wait for them ◄─┐                          │
//	         ▼                                └─ some made ─┘                          │
//	claim the run: writes to it wait; wait for those under way                         │
//	         ▼                                                                         │
//	copy it to the origin ─► flush the origin ─► clear it in the store ─► let bios go ─┘
//	         └──────────────────────┴───────────────────┴─ error ─► failed, end
//
// An error stops the merge with the status "Merge failed"; the snapshot works
// on, and a resume begins with the same run again. If it was the clearing that
// failed, nobody knows which of the two copies the next start will see, so writes
// to the run fail until it is cleared or, in a table of type snapshot, recorded
// again; the store remembers it for the next table. (The kernel writes to the COW
// device, and may lose it.) A crash anywhere repeats the copy of the run: entries
// are cleared after the origin has been flushed, and nobody writes to the run in
// between. So a lack of space repeats it, too: see shortage.go.
type merge struct {
	s      *snapshot
	queue  env.Queue
	work   *env.Work // round
	retry  *env.Work // protect
	wait   env.Wait
	job    kcopyd.Job
	flush  blk.Bio
	sector uint64 // of the origin: the run; belongs to the round
	length uint64 // sectors

	mu       sync.Mutex
	running  bool         // guarded by mu
	shutdown bool         // guarded by mu; stop before the next round
	first    uint64       // guarded by mu; the run that is claimed
	count    uint64       // guarded by mu; chunks in it, 0 for none
	queued   dm.CloneList // guarded by mu; writes that wait for it
	unclear  bool         // guarded by mu; whether the store has the run still: writes to it fail
}

func newMerge(s *snapshot, e env.Env) *merge {
	m := &merge{s: s, queue: e.NewQueue("snapshot-merge"), wait: e.NewWait()}
	m.work, m.retry = env.NewWork(m.round), env.NewWork(m.protect)
	m.job.Done = m.copied
	m.flush.End = m.flushed
	return m
}

// start begins to merge, unless it is under way.
func (m *merge) start() {
	m.mu.Lock()
	begin := !m.running
	m.running = true
	m.mu.Unlock()
	if begin {
		m.queue.Queue(m.work)
	}
}

// stop waits until the round under way is over, and reports whether there was
// one.
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

// aim sets the round's run: n chunks from old on in the origin and from new on in
// the COW device.
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

// protect gives the other snapshots their own copy of what will be overwritten.
func (m *merge) protect() {
	g := m.s.group
	step := max(1, g.members.Load().boundary)
	waits := false
	for at := m.sector; at < m.sector+m.length; at += step {
		w := originWrite{sector: at, wake: m.protected, waits: waits}
		waits = g.reallocate(&w) || waits
	}
	if !waits {
		m.claim()
	}
}

// protected comes when one of the exceptions that protect made is done.
func (m *merge) protected() { m.queue.Queue(m.retry) }

// claim keeps writes away from the run and waits for those under way.
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

// cleared takes the exceptions of the run out, from the last to the first, and
// goes on to the next.
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
		m.fail("merged chunks could not be taken out of the store")
		return
	}
	bios := m.unclaim()
	for c := bios.Pop(); c != nil; c = bios.Pop() {
		c.Issue()
	}
	m.queue.Queue(m.work)
}

// waitForSpace begins the round again later. Writes to its run wait as long.
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

// leave ends a merge that is to stop, perhaps in a round that waited for space.
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

// inherit takes note of a run whose clearing failed in the table before.
func (m *merge) inherit(d mergedRun) {
	m.mu.Lock()
	m.first, m.count, m.unclear = d.old+1-d.n, d.n, d.n > 0
	m.mu.Unlock()
}

// forget takes the run out of the table. One that is on disk but not in memory
// is an error.
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

// unclaim returns the writes that waited for the run. They are aimed at the
// origin.
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
	m.s.target.Log().Error("merge has stopped and will not go on", "reason", reason)
	bios := m.unclaim()
	for c := bios.Pop(); c != nil; c = bios.Pop() {
		c.Complete(blk.IOErr)
	}
	m.end()
}
