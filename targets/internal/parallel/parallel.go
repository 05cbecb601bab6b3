// Package parallel processes clones on several workers.
package parallel

import (
	"runtime"
	"sync"

	"udm/dm"
	"udm/env"
)

// Queue distributes clones to workers. Each worker is an env.Work that is queued only while
// there are clones for it, so Push never waits for a full queue. The queue's lock is a leaf.
type Queue struct {
	pool env.Workers

	mu   sync.Mutex
	todo dm.CloneList // guarded by mu
	idle []*env.Work  // guarded by mu; works that are not queued
}

// Init starts n workers, or one per processor if n is 0. It calls worker once for each; the
// function that worker returns is then called with one clone at a time, and may block.
func (q *Queue) Init(e env.Env, name string, n int, worker func() func(*dm.Clone)) {
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	q.pool = e.NewWorkers(name, n, n, nil)
	for range n {
		do := worker()
		work := &env.Work{}
		work.Fn = func() {
			for c := q.next(work); c != nil; c = q.next(work) {
				do(c)
				runtime.Gosched() // whoever waited for c may have more to push before the workers run dry
			}
		}
		q.idle = append(q.idle, work)
	}
}

// next returns the next clone for a work, or nil if the work must end.
func (q *Queue) next(work *env.Work) *dm.Clone {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.todo.Pop()
	if c == nil {
		q.idle = append(q.idle, work)
	}
	return c
}

// Push passes a clone to a worker. It does not block.
func (q *Queue) Push(c *dm.Clone) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.todo.Push(c)
	if n := len(q.idle); n > 0 {
		q.pool.Queue(q.idle[n-1])
		q.idle = q.idle[:n-1]
	}
}

// Close waits for the workers. Push must not be called any more.
func (q *Queue) Close() { q.pool.Close() }
