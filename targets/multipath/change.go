package multipath

import (
	"slices"
	"strconv"
	"time"
)

func utoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// failLocked stops to use a path, and reports whether it was used.
func (m *multipath) failLocked(p *path) bool {
	if p.failed {
		return false
	}
	p.failed = true
	p.failures++
	g := p.group
	g.order = slices.DeleteFunc(g.order, func(o *path) bool { return o == p })
	m.usable--
	m.armExpiryLocked()
	m.armTestsLocked()
	return true
}

// reinstateLocked uses a path again, and reports whether it had failed.
func (m *multipath) reinstateLocked(p *path) bool {
	p.held = false
	if !p.failed {
		return false
	}
	p.failed = false
	if g := p.group; g.kind.first {
		g.order = slices.Insert(g.order, 0, p)
	} else {
		g.order = append(g.order, p)
	}
	m.usable++
	m.resending.Cancel(m.expiry)
	m.resending.Queue(m.again)
	return true
}

// tell reports what has become of a path.
func (m *multipath) tell(p *path, what string) {
	m.target.Log().Warn(what, "path", p.dev.Name())
	m.target.Event()
}

// setQueueing changes what becomes of bios while there is no path.
func (m *multipath) setQueueing(on bool) {
	m.mu.Lock()
	m.queues = on
	m.armExpiryLocked()
	m.mu.Unlock()
	m.resending.Queue(m.again)
}

// armExpiryLocked limits the time in which bios wait for a path, if there is a limit.
func (m *multipath) armExpiryLocked() {
	limit := m.target.Param(timeoutParam).Get()
	if m.usable == 0 && m.queues && limit > 0 {
		m.resending.QueueAfter(m.expiry, time.Duration(limit)*time.Second)
	}
}

// expire is the work that ends the queueing when a path has been missing for too long.
func (m *multipath) expire() {
	m.mu.Lock()
	over := m.usable == 0 && m.queues && !m.stopped
	m.mu.Unlock()
	if over {
		m.target.Log().Warn("multipath: there has been no path for too long; I/O fails now")
		m.setQueueing(false)
	}
}
