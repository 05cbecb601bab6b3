package multipath

import (
	"time"

	"udm/blk"
)

// test is a read that tells whether a path works again.
type test struct {
	bio  blk.Bio
	data []byte
	busy bool // guarded by multipath.mu
}

// armTestsLocked has failed paths tested after the interval, if there are some to test.
func (m *multipath) armTestsLocked() {
	if m.line.Polling > 0 && !m.stopped && m.anyToTestLocked() {
		m.testing.QueueAfter(m.poll, time.Duration(m.line.Polling)*time.Second)
	}
}

func (m *multipath) anyToTestLocked() (any bool) {
	m.each(func(p *path) { any = any || p.failed && !p.held })
	return any
}

// testFailed is the work that tests failed paths. One whose test is not over is left alone.
func (m *multipath) testFailed() {
	var todo []*path
	m.mu.Lock()
	if !m.stopped {
		m.each(func(p *path) {
			if p.failed && !p.held && m.beginTestLocked(p) {
				todo = append(todo, p)
			}
		})
		m.armTestsLocked()
	}
	m.mu.Unlock()
	for _, p := range todo {
		p.dev.Submit(&p.test.bio)
	}
}

// beginTestLocked prepares the read of a path's first block.
func (m *multipath) beginTestLocked(p *path) bool {
	if p.test == nil {
		p.test = &test{data: make([]byte, p.dev.Limits().LogicalBlock)}
	}
	if p.test.busy {
		return false
	}
	p.test.busy = true
	m.tests++
	b := &p.test.bio
	b.Reset()
	b.SetData(p.test.data)
	b.End = func(b *blk.Bio) { m.tested(p, b.Status()) }
	return true
}

// tested is the end of a test.
func (m *multipath) tested(p *path, st blk.Status) {
	m.mu.Lock()
	p.test.busy = false
	back := st == blk.OK && !p.held && !m.stopped && m.reinstateLocked(p)
	m.mu.Unlock()
	if back {
		m.tell(p, "multipath: a path works again")
	}
	m.mu.Lock()
	m.tests--
	m.mu.Unlock()
	m.wait.Wake()
}
