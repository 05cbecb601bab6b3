package filedev

import (
	"sync"

	"udm/blk"
)

// pool runs bios on goroutines. A goroutine inside End does not count against the
// bound, so an End that submits to a full queue waits for other goroutines, not
// for itself.
//
//	        submit            a worker is free       do returns
//	bio ------------> queued ------------------> busy ----------> End
type pool struct {
	do       func(*blk.Bio) blk.Status
	maxBusy  int
	maxQueue int

	mu    sync.Mutex
	ended sync.Cond // mu; broadcast when a goroutine ends
	queue []entry   // guarded by mu; queue[head:] wait
	head  int       // guarded by mu
	busy  int       // guarded by mu; goroutines that are not inside End
	live  int       // guarded by mu; goroutines
	ends  int       // guarded by mu; goroutines inside End
}

// entry is a queued bio. If it lies beyond the bound, its submitter waits until
// admitted is closed.
type entry struct {
	b        *blk.Bio
	admitted chan struct{}
}

func newPool(busy, queue int, do func(*blk.Bio) blk.Status) *pool {
	p := &pool{do: do, maxBusy: busy, maxQueue: queue}
	p.ended.L = &p.mu
	return p
}

// submit queues b and blocks until it is within the bound.
func (p *pool) submit(b *blk.Bio) {
	p.mu.Lock()
	e := entry{b: b}
	full := len(p.queue)-p.head >= p.maxQueue
	if full && b.Flags&blk.NoWait != 0 {
		p.mu.Unlock()
		b.Complete(blk.WouldBlock)
		return
	}
	if full {
		e.admitted = make(chan struct{})
	}
	p.addLocked(e)
	p.mu.Unlock()
	if full {
		<-e.admitted
	}
}

// idle reports whether no bio is queued, under way or inside End.
func (p *pool) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.busy == 0 && p.ends == 0 && p.head == len(p.queue)
}

// again queues b beyond the bound.
func (p *pool) again(b *blk.Bio) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addLocked(entry{b: b})
}

func (p *pool) addLocked(e entry) {
	p.queue = append(p.queue, e)
	if p.busy < p.maxBusy {
		p.busy++
		p.live++
		go p.work()
	}
}

// nextLocked takes the oldest bio and admits the one that this brings within the
// bound.
func (p *pool) nextLocked() *blk.Bio {
	if p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
		return nil
	}
	b := p.queue[p.head].b
	p.queue[p.head] = entry{}
	p.head++
	if last := p.head + p.maxQueue - 1; last < len(p.queue) && p.queue[last].admitted != nil {
		close(p.queue[last].admitted)
		p.queue[last].admitted = nil
	}
	if p.head >= 64 && p.head*2 >= len(p.queue) {
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
	return b
}

// work runs bios until none is left or maxBusy other goroutines are busy.
func (p *pool) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for b := p.nextLocked(); b != nil; b = p.nextLocked() {
		p.mu.Unlock()
		st := p.do(b)
		p.mu.Lock()
		p.busy--
		p.ends++
		p.mu.Unlock()
		b.Complete(st)
		p.mu.Lock()
		p.ends--
		if p.busy == p.maxBusy {
			p.endLocked()
			return
		}
		p.busy++
	}
	p.busy--
	p.endLocked()
}

func (p *pool) endLocked() {
	p.live--
	p.ended.Broadcast()
}

// close waits until all goroutines have ended.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.live > 0 {
		p.ended.Wait()
	}
}
