package mirror

import (
	"sync/atomic"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/kcopyd"
	"udm/targets/internal/segment"
)

// leg is one of the devices with the same data.
type leg struct {
	segment.Segment
	failures atomic.Uint32 // bit for each failure that it had since the mirror was in sync
	copy     *kcopyd.Dev   // the owner's
}

// failure is a kind of error of a leg. The first one that it had is the letter in the
// status.
type failure uint32

const (
	flushFailed failure = 1 << iota
	writeFailed
	syncFailed
	readFailed
)

func (l *leg) failed() bool { return l.failures.Load() != 0 }

// health is the letter of a leg in the status.
func (l *leg) health() byte {
	switch f := failure(l.failures.Load()); {
	case f == 0:
		return 'A'
	case f&flushFailed != 0:
		return 'F'
	case f&writeFailed != 0:
		return 'D'
	case f&syncFailed != 0:
		return 'S'
	}
	return 'R'
}

// choose returns the leg to read from: the primary, or if it has failed the first one
// below it, in a circle, that has not. nil: all have failed.
func (m *mirror) choose() *leg {
	first := int(m.primary.Load())
	for i := range m.legs {
		if l := &m.legs[(first-i+len(m.legs))%len(m.legs)]; !l.failed() {
			return l
		}
	}
	return nil
}

// valid returns the first leg that has not failed, -1 for none.
func (m *mirror) valid() int {
	for i := range m.legs {
		if !m.legs[i].failed() {
			return i
		}
	}
	return -1
}

func (m *mirror) primaryFailed() bool { return m.legs[m.primary.Load()].failed() }

// fail records a failure of a leg. If it was the primary, another one takes its place, but
// not while the mirror is out of sync, when the others may have older data.
func (m *mirror) fail(i int, f failure) {
	m.legFailed.Store(true)
	old := failure(m.legs[i].failures.Or(uint32(f)))
	if old&f != 0 || !m.line.HandleErrors {
		return
	}
	if int(m.primary.Load()) == i {
		m.replacePrimary(i)
	}
	m.target.Event()
}

func (m *mirror) replacePrimary(i int) {
	if !m.inSync.Load() && !m.line.KeepLog {
		m.target.Log().Error("mirror: the primary leg failed while the mirror is out of sync; reads may fail", "leg", m.legs[i].Dev.Name())
		return
	}
	if to := m.valid(); to >= 0 {
		m.primary.CompareAndSwap(int32(i), int32(to))
		return
	}
	m.target.Log().Warn("mirror: all legs have failed")
}

// index returns the place of a leg.
func (m *mirror) index(l *leg) int {
	for i := range m.legs {
		if &m.legs[i] == l {
			return i
		}
	}
	return -1
}

// forgetFailures is called when the mirror has become in sync. The first leg, which a restart
// takes for the source, is the primary again.
func (m *mirror) forgetFailures() {
	m.primary.Store(0)
	m.legFailed.Store(false)
	for i := range m.legs {
		m.legs[i].failures.Store(0)
	}
}

// readFailed handles a read that failed on its leg. It reports whether the read goes on, by
// another leg.
func (m *mirror) readFailed(c *dm.Clone, p *perIO, st blk.Status) bool {
	if st == blk.NotSupported || st == blk.WouldBlock {
		return false
	}
	m.fail(m.index(p.leg), readFailed)
	p.leg = nil
	if m.primaryFailed() && (!m.log.inSync(p.number) || m.choose() == nil) {
		return false
	}
	c.Rewind()
	m.give(&m.inbox.reads, c)
	return true
}

// flushLegs flushes all legs, and returns the worst error.
func (m *mirror) flushLegs() (worst error) {
	for i := range m.legs {
		err := blk.FlushDevice(m.target.Env(), m.legs[i].Dev)
		if err != nil && err != blk.NoSpace {
			m.fail(i, flushFailed)
		}
		if err != nil && worst != blk.IOErr {
			worst = err
		}
	}
	return worst
}
