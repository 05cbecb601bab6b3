package env

import (
	"runtime"
	"sync"
)

// Workers run a fixed number of works in parallel, in any order. They are for
// processor-bound work such as checksums, encryption and compression. A bounded
// number of works may wait. When it is reached Queue returns false instead of
// blocking, so that Map may call it:
//
//	t.mu.Lock()
//	if !t.workers.Queue(&p.work) {
//		t.waiting.Push(p) // room comes back to it
//	}
//	t.mu.Unlock()
//
// The function room, passed to NewWorkers, is called when there is room again. It
// may take the caller's lock, and queues the waiting works until Queue refuses
// one again.
type Workers interface {
	// Queue queues w and returns true. It returns false if the most works wait
	// already, or after Close. A work that waits already stays where it is; a
	// running one may be queued again and then runs in parallel with itself.
	// Queue neither blocks nor calls anything.
	//
	// After Queue returned false for lack of room, room is called once, after
	// Queue returns or concurrently, but not on its stack.
	Queue(w *Work) bool
	// Close runs the queued works and waits for them and for a running room. It
	// must not be called from a work or from room. Closing twice is allowed.
	Close()
}

// realWorkers keeps goroutines only while there is work, as realQueue does.
type realWorkers struct {
	most int
	room func()
	work func() // the method value run, made once so that starting it does not allocate

	mu      sync.Mutex
	idle    sync.Cond // mu; broadcast when the last goroutine ends
	waiting workRing  // guarded by mu
	refused bool      // guarded by mu; room must be called
	running int       // guarded by mu; goroutines
	closed  bool      // guarded by mu
}

func (realEnv) NewWorkers(_ string, n, depth int, room func()) Workers {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	p := &realWorkers{most: n, room: room, waiting: newWorkRing(depth)}
	p.idle.L, p.work = &p.mu, p.run
	return p
}

func (p *realWorkers) Queue(w *Work) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return false
	case w.queued:
		return true
	case p.waiting.full():
		p.refused = p.room != nil
		return false
	}
	p.waiting.push(w)
	if p.running < p.most {
		p.running++
		go p.work()
	}
	return true
}

func (p *realWorkers) run() {
	deepen(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.waiting.n > 0 {
		w := p.waiting.take(0)
		room := p.refused && p.waiting.roomy()
		p.refused = p.refused && !room
		p.mu.Unlock()
		if room {
			p.room()
		}
		w.Fn()
		p.mu.Lock()
	}
	if p.running--; p.running == 0 {
		p.idle.Broadcast()
	}
}

func (p *realWorkers) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.refused = true, false
	for p.running > 0 {
		p.idle.Wait()
	}
}

// workRing holds the waiting works, oldest first.
type workRing struct {
	works []*Work
	first int
	n     int
}

func newWorkRing(depth int) workRing { return workRing{works: make([]*Work, max(1, depth))} }

func (r *workRing) full() bool { return r.n == len(r.works) }

// roomy reports whether to call room: only when half of the ring is free, not for
// each free slot.
func (r *workRing) roomy() bool { return r.n <= len(r.works)/2 }

func (r *workRing) at(i int) **Work { return &r.works[(r.first+i)%len(r.works)] }

func (r *workRing) push(w *Work) {
	w.queued = true
	*r.at(r.n) = w
	r.n++
}

// take removes the oldest work, after swapping it with work i.
func (r *workRing) take(i int) *Work {
	first, other := r.at(0), r.at(i)
	w := *other
	*other, *first = *first, nil
	r.first, r.n = (r.first+1)%len(r.works), r.n-1
	w.queued = false
	return w
}
