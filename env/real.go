package env

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"
)

var start = time.Now()

// Real returns the production environment: a goroutine for each busy queue, the
// machine's clock, and the machine's random numbers.
func Real() Env { return realEnv{} }

type realEnv struct{}

func (realEnv) Now() time.Duration    { return time.Since(start) }
func (realEnv) NewQueue(string) Queue { return newRealQueue() }
func (realEnv) NewWait() Wait         { w := &realWait{}; w.cond.L = &w.mu; return w }

func (realEnv) Uint64() uint64 {
	var p [8]byte
	_, _ = rand.Read(p[:]) // it ends the program rather than fail
	return binary.LittleEndian.Uint64(p[:])
}

type realWait struct {
	mu   sync.Mutex
	cond sync.Cond
}

func (w *realWait) Until(cond func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !cond() {
		w.cond.Wait()
	}
}

func (w *realWait) Wake() {
	w.mu.Lock()
	w.cond.Broadcast()
	w.mu.Unlock()
}

// realQueue has a goroutine only while it has works: the first work starts it,
// and it ends when the queue is empty. An idle queue thus costs no stack, and an
// unclosed one leaks nothing.
type realQueue struct {
	mu      sync.Mutex
	idle    sync.Cond            // mu; broadcast when a work has run or running becomes false
	works   []*Work              // guarded by mu; works[head:] are queued
	head    int                  // guarded by mu
	done    uint64               // guarded by mu; works that have run or were cancelled
	running bool                 // guarded by mu; a goroutine is draining the queue
	active  bool                 // guarded by mu; a work is running; it is no longer in works
	closed  bool                 // guarded by mu
	armed   map[*Work]*realTimer // guarded by mu
}

func newRealQueue() *realQueue {
	q := &realQueue{armed: make(map[*Work]*realTimer)}
	q.idle.L = &q.mu
	return q
}

func (q *realQueue) Queue(w *Work) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.queueLocked(w)
}

func (q *realQueue) queueLocked(w *Work) bool {
	if q.closed || w.queued {
		return false
	}
	w.queued = true
	q.works = append(q.works, w)
	if !q.running {
		q.running = true
		go q.run()
	}
	return true
}

func (q *realQueue) run() {
	deepen(0)
	q.mu.Lock()
	for q.head < len(q.works) {
		w := q.works[q.head]
		q.works[q.head] = nil
		q.head++
		if w != nil {
			w.queued, q.active = false, true
			q.mu.Unlock()
			w.Fn()
			q.mu.Lock()
			q.active = false
		}
		q.ran()
	}
	q.running = false
	q.idle.Broadcast()
	q.mu.Unlock()
}

// deepen grows the stack of a new goroutine while it is still empty. Works need
// deep stacks, and growing them step by step costs more than the works
// themselves.
//
//go:noinline
func deepen(i int) byte {
	var room [5 << 10]byte
	room[i] = 1 // prevents the compiler from removing room
	return room[len(room)-1-i]
}

// ran counts one work and reclaims the front of the slice. Called with mu held.
func (q *realQueue) ran() {
	q.done++
	if q.head == len(q.works) {
		q.works, q.head = q.works[:0], 0
	} else if q.head >= 64 && q.head*2 >= len(q.works) {
		n := copy(q.works, q.works[q.head:])
		clear(q.works[n:])
		q.works, q.head = q.works[:n], 0
	}
	q.idle.Broadcast()
}

func (q *realQueue) Cancel(w *Work) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	disarmed, unqueued := q.disarmLocked(w), q.unqueueLocked(w)
	return disarmed || unqueued
}

func (q *realQueue) unqueueLocked(w *Work) bool {
	if !w.queued {
		return false
	}
	for i := q.head; i < len(q.works); i++ {
		if q.works[i] == w {
			q.works[i] = nil
			w.queued = false
			return true
		}
	}
	return false
}

func (q *realQueue) Flush() {
	q.mu.Lock()
	defer q.mu.Unlock()
	// The running work counts, too.
	target := q.done + uint64(len(q.works)-q.head)
	if q.active {
		target++
	}
	for q.running && q.done < target {
		q.idle.Wait()
	}
}

func (q *realQueue) Close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for w := range q.armed {
		q.disarmLocked(w)
	}
	for q.running {
		q.idle.Wait()
	}
}

// realTimer is one arming of a work. A timer that fires after it was replaced
// finds another one in armed and does nothing.
type realTimer struct{ t *time.Timer }

func (q *realQueue) QueueAfter(w *Work, d time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.disarmLocked(w)
	if q.closed {
		return
	}
	t := &realTimer{}
	q.armed[w] = t
	t.t = time.AfterFunc(d, func() { q.fire(w, t) })
}

func (q *realQueue) fire(w *Work, t *realTimer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.armed[w] == t {
		delete(q.armed, w)
		q.queueLocked(w)
	}
}

func (q *realQueue) disarmLocked(w *Work) bool {
	t, ok := q.armed[w]
	if ok {
		delete(q.armed, w)
		t.t.Stop()
	}
	return ok
}
