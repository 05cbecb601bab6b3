package kcopyd

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"udm/blk"
)

// Buffers come in classes of 4 KiB · 2^n, so that the small copies of a small
// chunk size keep using the same few cached pages.
const (
	smallestClass = 12 // log2 bytes
	classes       = 9  // up to 1 MiB
	noBuffer      = -1
	zeroPage      = 64 << 10
)

func classBytes(class int) int64 { return 1 << (smallestClass + class) }

// classOf is the buffer class for n sectors.
func classOf(n uint64) int {
	return max(0, bits.Len64(n*blk.SectorSize-1)-smallestClass)
}

// memory allocates segments with their buffers.
type memory struct {
	c     *Client
	limit int64 // bytes in use at a time, counted by the client
	pools [classes]sync.Pool
	bare  sync.Pool // segments without a buffer

	waiters atomic.Int32 // len of waiting, to be read without mu
	mu      sync.Mutex
	waiting []waiter // guarded by mu; FIFO
}

// waiter is a segment of a job that waits for memory.
type waiter struct {
	job   *Job
	class int
}

func (m *memory) init(c *Client) {
	m.c = c
	for i := range m.pools {
		m.pools[i].New = func() any { return newSegment(c, i) }
	}
	m.bare.New = func() any { return newSegment(c, noBuffer) }
}

// zeroes holds the data of the longest zeroing segment. It is never written to.
var zeroes = sync.OnceValue(func() [][]byte {
	return slices.Repeat([][]byte{make([]byte, zeroPage)}, maxSubJob*blk.SectorSize/zeroPage)
})

// get returns a segment for j, or nil if j must wait for memory; put then returns its
// segment.
func (m *memory) get(j *Job, class int) *segment {
	if class == noBuffer {
		return m.prepare(m.bare.Get(), j)
	}
	if m.waiters.Load() == 0 && m.reserve(j.shard, class) {
		return m.prepare(m.pools[class].Get(), j)
	}
	m.mu.Lock()
	m.waiting = append(m.waiting, waiter{j, class})
	m.waiters.Add(1)
	m.mu.Unlock()
	// A put before the job was in the list did not see it.
	return m.next()
}

func (m *memory) prepare(s any, j *Job) *segment {
	seg := s.(*segment)
	seg.job, seg.shard, seg.stage = j, j.shard, begin
	return seg
}

// reserve reserves memory if enough is free.
func (m *memory) reserve(sh *Shard, class int) bool {
	return m.c.inFlight.TakeUpTo(m.limit, sh, classBytes(class))
}

// put frees s and returns a segment for a waiting job, or nil if none waits.
func (m *memory) put(s *segment) *segment {
	if s.size == noBuffer {
		m.bare.Put(s)
		return nil
	}
	m.c.inFlight.Give(s.shard, classBytes(s.size))
	m.pools[s.size].Put(s)
	if m.waiters.Load() == 0 {
		return nil
	}
	return m.next()
}

// next returns a segment for the oldest waiting job if there is memory for it.
func (m *memory) next() *segment {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 {
		return nil
	}
	m.c.inFlight.Reclaim()
	w := m.waiting[0]
	if !m.reserve(w.job.shard, w.class) {
		return nil
	}
	m.waiting[0] = waiter{}
	if m.waiting = m.waiting[1:]; len(m.waiting) == 0 {
		m.waiting = nil
	}
	m.waiters.Add(-1)
	return m.prepare(m.pools[w.class].Get(), w.job)
}
