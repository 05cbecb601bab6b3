package thin

import (
	"cmp"
	"slices"
	"sync"

	"udm/blk"
	"udm/env"
	"udm/targets/internal/kcopyd"
)

// filler takes space for the holes of new blocks that the pool does not zero. Which holes
// there are only the data device knows, and behind a network that is a round trip, so it is
// asked on a queue of its own: the owner never waits for it, and neighbouring blocks share
// a question.
type filler struct {
	queue env.Queue
	work  *env.Work // fillAll

	mu    sync.Mutex
	parts []part // guarded by mu; whose holes are not known yet
}

// part is a new block from a sector on.
type part struct {
	m    *mapping
	from uint64
}

func (p *pool) initFiller() {
	p.filler.queue, p.filler.work = p.env.NewQueue("dm-thin-fill"), env.NewWork(p.fillAll)
}

// fillHoles takes space for the holes of a new block from a sector on, which then still read
// as zeroes. It is one of m's actions.
func (m *mapping) fillHoles(from uint64) {
	f := &m.t.pool.filler
	f.mu.Lock()
	f.parts = append(f.parts, part{m, from})
	f.mu.Unlock()
	f.queue.Queue(f.work)
}

// fillAll fills all parts, one run of neighbours after the other.
func (p *pool) fillAll() {
	p.filler.mu.Lock()
	parts := p.filler.parts
	p.filler.parts = nil
	p.filler.mu.Unlock()
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(a.m.data, b.m.data) })
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].m.data == parts[n-1].m.data+1 && parts[n].from == 0 {
			n++
		}
		p.fillRun(parts[:n])
		parts = parts[n:]
	}
}

// fillRun asks for the holes of a run of neighbours and fills them.
func (p *pool) fillRun(run []part) {
	start := run[0].m.data * p.blockSectors
	at, end := start+run[0].from, start+uint64(len(run))*p.blockSectors
	for at < end {
		for _, e := range blk.ExtentsOf(&p.data, at, end-at) {
			for stop := e.Sector + e.Sectors; at < stop; {
				next := min(stop, at+p.blockSectors-at%p.blockSectors)
				if !e.Data {
					run[(at-start)/p.blockSectors].m.fill(at, next)
				}
				at = next
			}
		}
	}
	for _, part := range run {
		part.m.done()
	}
}

// fill takes space for sectors [from, to) of the data device, which lie in the new block.
func (m *mapping) fill(from, to uint64) {
	start := m.data * m.t.blockSectors
	m.left.Add(1)
	m.zero(&kcopyd.Job{}, from-start, to-start)
}
