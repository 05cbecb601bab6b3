package mirror

import (
	"sync/atomic"
	"time"

	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// recovery makes regions alike on all legs, one at a time.
//
//	chosen ─► its writes end ─► copied from the primary ─► the log is told ─► the next one
type recovery struct {
	region *region // chosen; nil: none
	busy   atomic.Bool
	job    kcopyd.Job
	source int // leg
	ended  bool
}

// retryAfter is how long a recovery waits for space.
const retryAfter = time.Second

// recover chooses a region if there is none, and copies it when it has no writes.
func (m *mirror) recover() {
	rec := &m.recovery
	m.mu.Lock()
	if rec.region == nil && !m.stopped {
		if number, ok := m.log.next(); ok {
			rec.region = m.findLocked(number)
			rec.region.state = recovering
			rec.busy.Store(true)
		}
	}
	ready := rec.region != nil && rec.region.pending == 0 && rec.job.Sectors == 0
	m.mu.Unlock()
	if ready {
		m.copy(rec.region.number)
	}
	m.lookWhetherInSync()
}

// lookWhetherInSync raises an event when all regions have become in sync, also those that the
// log does not know of yet.
func (m *mirror) lookWhetherInSync() {
	m.mu.Lock()
	rs := &m.regions
	became := !m.inSync.Load() && !rs.doubtful && len(rs.lost) == 0 && m.log.synced.Load() == m.log.count
	if became {
		m.inSync.Store(true)
	}
	m.mu.Unlock()
	if became {
		m.forgetFailures()
		m.target.Event()
	}
}

// lookWhetherOutOfSync is called when the log was read, before there is I/O: from the first
// write on only the primary may have the data, so no other leg takes its place.
func (m *mirror) lookWhetherOutOfSync() {
	if m.log.synced.Load() != m.log.count {
		m.inSync.Store(false)
	}
}

func (m *mirror) copy(number uint64) {
	rec, start := &m.recovery, number<<m.shift
	rec.source, rec.job.To = int(m.primary.Load()), rec.job.To[:0]
	for i := range m.legs {
		l := &m.legs[i]
		if p := (kcopyd.Place{Dev: l.copy, Sector: l.Start + start}); i == rec.source {
			rec.job.From = p
		} else {
			rec.job.To = append(rec.job.To, p)
		}
	}
	rec.job.Sectors = min(uint64(m.line.Region), m.target.Len-start)
	rec.job.IgnoreErrors = !m.line.HandleErrors
	m.copier.Copy(&rec.job)
}

// copied runs on the owner when the copy has ended.
func (m *mirror) copied(j *kcopyd.Job) {
	m.recovery.ended = true
	if j.ReadFailed {
		m.fail(m.recovery.source, syncFailed)
	}
	if !j.NoSpace {
		m.failedLegs(j.WriteFailed)
	}
	m.queue.Queue(m.work)
}

// failedLegs fails the legs that a copy could not be written to. A bit of mask is a leg, the
// source left out.
func (m *mirror) failedLegs(mask uint8) {
	bit := 0
	for i := range m.legs {
		if i == m.recovery.source {
			continue
		}
		if mask>>bit&1 != 0 {
			m.fail(i, syncFailed)
		}
		bit++
	}
}

// endRecovery tells the log of a copy that has ended. Without handle_errors a region counts
// as in sync even if it failed, but does not become clean.
func (m *mirror) endRecovery() {
	rec := &m.recovery
	if !rec.ended {
		return
	}
	j := &rec.job
	if !j.Failed() {
		m.log.markClean(rec.region.number)
	}
	if j.NoSpace {
		m.queue.QueueAfter(m.again, retryAfter)
	}
	rec.ended, j.Sectors = false, 0
	m.leaveRecovery(!j.Failed() || !m.line.HandleErrors && !j.NoSpace)
}

// leaveRecovery lets the writes go that waited for the region.
func (m *mirror) leaveRecovery(ok bool) {
	r := m.recovery.region
	m.recovery.region = nil
	m.log.setSync(r.number, ok)
	m.lookWhetherInSync()
	m.mu.Lock()
	m.inbox.writes.Append(&r.delayed)
	if r.pending == 0 {
		m.regions.forgetLocked(r)
	} else {
		r.state = notInSync
	}
	m.mu.Unlock()
	m.queue.Queue(m.work)
	m.recovery.busy.Store(false)
	m.wait.Wake()
}

// tryAgain looks for regions that are not in sync from the beginning.
func (m *mirror) tryAgain() {
	m.log.search = 0
	m.queue.Queue(m.work)
}

// markNotInSync puts the region of a write that failed on a leg out of sync.
func (m *mirror) markNotInSync(c *dm.Clone) {
	p := c.PerIO.(*perIO)
	m.mu.Lock()
	if !p.begun {
		m.regions.doubtful = true // a flush
		m.mu.Unlock()
		return
	}
	r := m.regions.known[p.first]
	was := r.state
	r.state = notInSync
	m.mu.Unlock()
	if was == recovering {
		m.leaveRecovery(false)
		return
	}
	m.log.setSync(r.number, false)
}
