package mirror

import (
	"udm/blk"
	"udm/dm"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// call runs fn on the owner.
func (m *mirror) call(fn func()) { env.Call(m.queue, m.wait, fn) }

// pass is the owner's work.
func (m *mirror) pass() {
	m.mu.Lock()
	in := m.inbox
	m.inbox = inbox{}
	m.mu.Unlock()
	m.endRecovery()
	_ = m.updateLog() // a failure shows when a write needs the log
	m.recover()
	m.read(in.reads)
	m.write(in.writes)
	m.failures(in.failures)
}

// read sends reads that could not be mapped at once: those of regions that are not in sync
// only to the primary leg.
func (m *mirror) read(list dm.CloneList) {
	for c := list.Pop(); c != nil; c = list.Pop() {
		m.mu.Lock()
		s := m.stateLocked(m.regionOf(c))
		m.mu.Unlock()
		l := &m.legs[m.primary.Load()]
		if s == clean || s == dirty {
			l = m.choose()
		} else if l.failed() {
			l = nil
		}
		if l == nil {
			c.Complete(blk.IOErr)
			continue
		}
		m.issue(c, l)
	}
}

// issue sends a clone to one leg.
func (m *mirror) issue(c *dm.Clone, l *leg) {
	if p := c.PerIO.(*perIO); c.Op == blk.Read {
		p.leg = l
	}
	c.Flags &^= blk.NoWait
	l.Map(c)
	c.Issue()
}

// write sends writes, after the log has been told of their regions.
func (m *mirror) write(list dm.CloneList) {
	if list.Empty() {
		return
	}
	var all, one dm.CloneList // to all legs, and to the primary
	for c := list.Pop(); c != nil; c = list.Pop() {
		if c.Op == blk.Flush {
			all.Push(c)
			continue
		}
		switch s := m.begin(c); {
		case s == recovering:
		case s == notInSync && c.Op == blk.Write:
			one.Push(c)
		default:
			all.Push(c)
		}
	}
	err := m.log.flush()
	m.logFailed = m.logFailed || err != nil && err != blk.NoSpace
	m.sendAll(all, err)
	m.sendOne(one, err)
}

func (m *mirror) sendAll(list dm.CloneList, err error) {
	for c := list.Pop(); c != nil; c = list.Pop() {
		switch {
		case err == blk.NoSpace:
			c.Complete(blk.NoSpace)
		case m.logFailed && m.line.HandleErrors:
			m.decide(c)
		default:
			m.writeAll(c)
		}
	}
}

// sendOne sends writes to the primary leg, but not while the log on the disk may call their
// regions clean: after a restart the legs would count as alike. err: of the log.
func (m *mirror) sendOne(list dm.CloneList, err error) {
	early := m.log.mayCallClean()
	for c := list.Pop(); c != nil; c = list.Pop() {
		switch {
		case early && err == blk.NoSpace:
			c.Complete(blk.NoSpace)
		case m.line.HandleErrors && (early || m.legFailed.Load() && !m.line.KeepLog):
			m.give(&m.inbox.failures, c)
		default:
			m.issue(c, &m.legs[m.primary.Load()])
		}
	}
}

// failures is about writes that failed on a leg, also if the log has failed meanwhile, or that
// were not sent to the primary alone. A recovery that waits for one does not take place.
func (m *mirror) failures(list dm.CloneList) {
	for c := list.Pop(); c != nil; c = list.Pop() {
		m.inSync.Store(false)
		m.markNotInSync(c)
		m.decide(c)
	}
}

// decide ends or holds a write that failed on a leg, or that was not sent because the log
// failed.
func (m *mirror) decide(c *dm.Clone) {
	switch {
	case m.valid() < 0 || m.line.KeepLog && m.logFailed:
		c.Complete(blk.IOErr)
	case m.line.HandleErrors && !m.line.KeepLog:
		m.hold(c)
	default:
		c.Complete(blk.OK)
	}
}

// hold keeps a write until the device is suspended.
func (m *mirror) hold(c *dm.Clone) {
	m.mu.Lock()
	suspending := m.stopped
	if !suspending {
		m.held.Push(c)
	}
	m.mu.Unlock()
	if suspending {
		m.letGo(c)
	}
}

// letGo ends a held write: it fails, or the core sends it again after the resume.
func (m *mirror) letGo(c *dm.Clone) {
	c.PerIO.(*perIO).requeue = m.target.NoflushSuspending()
	c.Complete(blk.IOErr)
}

// Presuspend lets held writes go, and waits until no region is being recovered.
func (m *mirror) Presuspend() {
	m.mu.Lock()
	m.stopped = true
	held := m.held.Take()
	m.mu.Unlock()
	for c := held.Pop(); c != nil; c = held.Pop() {
		m.letGo(c)
	}
	m.queue.Flush() // a recovery that was just being chosen
	m.wait.Until(func() bool { return !m.recovery.busy.Load() })
	m.queue.Flush() // the writes that waited for it
}

// PresuspendUndo goes on.
func (m *mirror) PresuspendUndo() { m.start() }

// Postsuspend leaves a log on the disk in which what has ended is clean.
func (m *mirror) Postsuspend() {
	var err error
	m.call(func() { err = m.updateLog() })
	if err != nil {
		m.target.Log().Warn("mirror: the log could not be written at the suspend", "error", err)
	}
}

// Resume reads the log, and begins to recover what is not in sync.
func (m *mirror) Resume() {
	var err error
	m.call(func() {
		for i := range m.legs {
			m.legs[i].copy = kcopyd.Open(m.legs[i].Dev)
		}
		err = m.log.resume()
		m.lookWhetherOutOfSync()
	})
	if err != nil {
		m.target.Log().Warn("mirror: the log could not be read and written", "log", m.log.dev.Name(), "error", err)
	}
	m.start()
}

func (m *mirror) start() {
	m.mu.Lock()
	m.stopped = false
	m.mu.Unlock()
	m.queue.Queue(m.work)
}
