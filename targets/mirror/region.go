package mirror

import (
	"udm/blk"
	"udm/dm"
)

// state is that of a region in memory.
type state uint8

const (
	clean state = iota
	dirty
	notInSync
	recovering
)

// region is a region with I/O or one that is not as the log says.
type region struct {
	number  uint64
	state   state
	pending int          // writes and discards under way, and held ones
	delayed dm.CloneList // writes that wait for its recovery
	queued  bool         // it is in regions.idle
}

// regions are the regions in memory.
type regions struct {
	known    map[uint64]*region
	idle     []*region // have become clean
	lost     []uint64  // the log does not know yet that they are not in sync
	doubtful bool      // a flush failed: it is unknown which writes are on all legs
	spare    []*region // for reuse
}

// findLocked returns a region, which gets into memory.
func (m *mirror) findLocked(number uint64) *region {
	if r := m.regions.known[number]; r != nil {
		return r
	}
	r := m.regions.unusedLocked()
	*r = region{number: number, state: m.logged(number)}
	m.regions.known[number] = r
	return r
}

const maxSpare = 64

func (rs *regions) unusedLocked() *region {
	n := len(rs.spare)
	if n == 0 {
		return new(region)
	}
	r := rs.spare[n-1]
	rs.spare = rs.spare[:n-1]
	return r
}

// forgetLocked removes a region from memory: it is as the log says.
func (rs *regions) forgetLocked(r *region) {
	delete(rs.known, r.number)
	if len(rs.spare) < maxSpare {
		rs.spare = append(rs.spare, r)
	}
}

func (m *mirror) logged(number uint64) state {
	if m.log.inSync(number) {
		return clean
	}
	return notInSync
}

// stateLocked is the state of a region.
func (m *mirror) stateLocked(number uint64) state {
	if r := m.regions.known[number]; r != nil {
		return r.state
	}
	return m.logged(number)
}

// begin counts a write or a discard as pending in its regions, of which a discard may have
// several. The state decides where a write goes. If one of them is recovering, begin has put
// c into its queue.
func (m *mirror) begin(c *dm.Clone) (s state) {
	p := c.PerIO.(*perIO)
	p.first, p.last = m.regionOf(c), (c.Offset()+max(c.Sectors, 1)-1)>>m.shift
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.recovery.region; r != nil && p.first <= r.number && r.number <= p.last {
		r.delayed.Push(c)
		return recovering
	}
	for n := p.first; n <= p.last; n++ {
		r := m.findLocked(n)
		r.pending++
		if s = r.state; s == clean {
			r.state = dirty
			m.log.markDirty(n)
		}
	}
	p.begun = true
	return s
}

// writeEnded is EndIO of a write.
func (m *mirror) writeEnded(p *perIO, st blk.Status) (blk.Status, dm.EndOutcome) {
	if p.begun {
		p.begun = false
		last := false
		m.mu.Lock()
		for n := p.first; n <= p.last; n++ {
			last = m.endedLocked(m.regions.known[n]) || last
		}
		m.mu.Unlock()
		if last {
			m.queue.Queue(m.work)
		}
	}
	if p.requeue {
		p.requeue = false
		return st, dm.EndRequeue
	}
	return st, dm.EndDone
}

// endedLocked counts a write of r less, and reports whether it was the last one.
func (m *mirror) endedLocked(r *region) (last bool) {
	if r.pending--; r.pending > 0 {
		return false
	}
	switch {
	case r.state == recovering:
	case m.regions.doubtful:
		m.loseLocked(r)
	case r.state == dirty:
		r.state = clean
		if !r.queued {
			r.queued = true
			m.regions.idle = append(m.regions.idle, r)
		}
	}
	return true
}

// loseLocked puts a region out of sync.
func (m *mirror) loseLocked(r *region) {
	if r.state == dirty || r.state == clean {
		r.state = notInSync
		m.regions.lost = append(m.regions.lost, r.number)
	}
}

// updateLog tells the log what has become of regions, and brings it to the disk.
func (m *mirror) updateLog() error {
	m.mu.Lock()
	for _, r := range m.regions.idle {
		if r.queued = false; r.state == clean {
			m.log.markClean(r.number)
			m.regions.forgetLocked(r)
		}
	}
	clear(m.regions.idle)
	m.regions.idle = m.regions.idle[:0]
	for _, number := range m.regions.lost {
		m.log.setSync(number, false)
	}
	m.regions.lost = m.regions.lost[:0]
	m.mu.Unlock()
	return m.log.flush()
}
