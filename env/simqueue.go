package env

import (
	"container/heap"
	"slices"
	"time"
)

// simQueue is a Queue of a Sim. It has a task while it has works to run.
type simQueue struct {
	s      *Sim
	name   string
	works  []*Work
	task   *task
	done   uint64
	closed bool
	armed  map[*Work]*simTimer
}

// NewQueue makes a queue whose works run when the simulator is stepped.
func (s *Sim) NewQueue(name string) Queue {
	return &simQueue{s: s, name: name, armed: make(map[*Work]*simTimer)}
}

func (q *simQueue) Queue(w *Work) bool {
	if q.closed || w.queued {
		return false
	}
	w.queued = true
	q.works = append(q.works, w)
	if q.task == nil {
		q.task = &task{name: q.name, seq: q.s.nextSeq(), queue: q}
		q.s.tasks = append(q.s.tasks, q.task)
	}
	return true
}

func (q *simQueue) pop() func() {
	w := q.works[0]
	q.works = slices.Delete(q.works, 0, 1)
	w.queued = false
	return w.Fn
}

func (q *simQueue) QueueAfter(w *Work, d time.Duration) {
	q.disarm(w)
	if q.closed {
		return
	}
	t := &simTimer{at: q.s.now + d, seq: q.s.nextSeq()}
	t.fn = func() {
		delete(q.armed, w)
		q.Queue(w)
	}
	q.armed[w] = t
	heap.Push(&q.s.timers, t)
}

func (q *simQueue) disarm(w *Work) bool {
	t, ok := q.armed[w]
	if ok {
		delete(q.armed, w)
		heap.Remove(&q.s.timers, t.index)
	}
	return ok
}

func (q *simQueue) Cancel(w *Work) bool {
	disarmed := q.disarm(w)
	i := slices.Index(q.works, w)
	if i < 0 {
		return disarmed
	}
	q.works = slices.Delete(q.works, i, i+1)
	w.queued = false
	if len(q.works) == 0 && q.task.next == nil {
		q.s.end(q.task)
	}
	return true
}

func (q *simQueue) Flush() {
	target := q.done + uint64(len(q.works))
	if q.task != nil && q.task.next != nil {
		target++
	}
	q.s.until(func() bool { return q.task == nil || q.done >= target })
}

func (q *simQueue) Close() {
	q.closed = true
	for _, w := range q.sortedArmed() {
		q.disarm(w)
	}
	q.s.until(func() bool { return q.task == nil })
}

// sortedArmed returns the armed works in a fixed order, independent of map order.
func (q *simQueue) sortedArmed() []*Work {
	var ws []*Work
	for w := range q.armed {
		ws = append(ws, w)
	}
	slices.SortFunc(ws, func(a, b *Work) int { return int(int64(q.armed[a].seq - q.armed[b].seq)) })
	return ws
}

type simTimer struct {
	at    time.Duration
	seq   uint64
	fn    func()
	index int
}

// timerHeap orders timers by time, then by age.
type timerHeap []*simTimer

func (h timerHeap) Len() int { return len(h) }
func (h timerHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*simTimer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	*h = old[:len(old)-1]
	return t
}
