// Package parallel has clones worked on side by side.
package parallel

import (
	"runtime"
	"sync"

	"udm/dm"
	"udm/env"
)

// Queue gives clones to workers. Each is a work that is queued while there is something
// to do, so no queue is ever full. Its lock is a leaf.
type Queue struct {
	pool env.Workers

	mu   sync.Mutex
	todo dm.CloneList // guarded by mu
	idle []*env.Work  // guarded by mu; not queued
}

// Init makes n workers, for 0 one for each processor. worker is called for each of them,
// and what it returns is called with one clone after the other; it may wait.
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
			}
		}
		q.idle = append(q.idle, work)
	}
}

// next is the next clone for a work, nil to end it.
func (q *Queue) next(work *env.Work) *dm.Clone {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.todo.Pop()
	if c == nil {
		q.idle = append(q.idle, work)
	}
	return c
}

// Push has a clone worked on.
func (q *Queue) Push(c *dm.Clone) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.todo.Push(c)
	if n := len(q.idle); n > 0 {
		q.pool.Queue(q.idle[n-1])
		q.idle = q.idle[:n-1]
	}
}

// Close waits for the works.
func (q *Queue) Close() { q.pool.Close() }
