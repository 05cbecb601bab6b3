//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// Bounds of what a ring has under way. What is beyond waits in the ring.
const (
	maxJobs  = 256
	maxBytes = 32 << 20 // and one request more
	batch    = 32       // requests between two looks at everything else
)

// worker is the goroutine of a ring that runs. All but late belongs to it.
type worker struct {
	ring *ring
	own  int         // the eventfd that wakes it; the session closes it
	cmds chan func() // what the session wants done between two requests
	done chan struct{}
	late late

	q        *virtq.Queue
	view     *view
	inflight *inflight // nil: nothing is noted
	free     []*job
	jobs     int    // under way
	bytes    uint64 // of those, by their descriptors
	current  *job   // the one that guest memory is touched for
	pending  []*job // ended, not given back yet
	stopping bool
	dead     bool   // the ring or the memory is broken: neither is touched again
	position uint16 // at the end
}

// view is a memory, and how many jobs use it.
type view struct {
	mem  *memory
	jobs int
}

// late is what ended on other goroutines.
type late struct {
	mu     sync.Mutex
	list   []*job // guarded by mu
	asleep bool   // guarded by mu: the worker waits to be woken
}

func startWorker(r *ring, own int) *worker {
	w := &worker{
		ring: r, own: own, cmds: make(chan func(), 1), done: make(chan struct{}),
		view: &view{mem: r.session.mem.hold()}, position: r.base, inflight: r.session.inflight.hold(),
	}
	go w.run()
	return w
}

// do runs f on the worker, between two requests.
func (w *worker) do(f func()) {
	done := make(chan struct{})
	w.cmds <- func() {
		f()
		close(done)
	}
	signal(w.own)
	<-done
}

func (w *worker) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetPanicOnFault(true)
	defer close(w.done)
	w.guard(w.begin)
	for !w.stopping || w.jobs > 0 {
		select {
		case f := <-w.cmds:
			f()
			continue
		default:
		}
		if !w.round() {
			w.sleep()
		}
	}
	w.end()
}

// guard runs f, which touches guest memory, unless that is broken. A fault in it, or
// an error, breaks it.
func (w *worker) guard(f func() error) {
	if w.dead {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			w.faulted(p)
		}
	}()
	if err := f(); err != nil {
		w.breakDown(err)
	}
}

// faulted takes a panic that comes from guest memory.
func (w *worker) faulted(p any) {
	fault, ok := p.(interface{ Addr() uintptr })
	if !ok || !w.inGuest(fault.Addr()) {
		panic(p)
	}
	w.breakDown(errors.New("guest memory is gone: the front end has cut its file"))
}

func (w *worker) inGuest(addr uintptr) bool {
	holds := func(mem *memory) bool {
		for _, m := range mem.maps {
			if m.holds(addr) {
				return true
			}
		}
		return false
	}
	if w.inflight.holds(addr) {
		return true
	}
	return holds(w.view.mem) || w.current != nil && holds(w.current.view.mem)
}

func (w *worker) breakDown(err error) {
	w.dead = true
	if j := w.current; j != nil {
		w.recycle(j)
	}
	w.ring.err.tell()
	w.ring.fail(fmt.Errorf("ring %d: %w", w.ring.index, err))
}

func (w *worker) begin() (err error) {
	s := w.ring.session
	notes, err := w.inflight.of(w.ring.index)
	if err != nil {
		return err
	}
	w.q, err = virtq.NewQueue(virtq.Config{
		Size:     w.ring.num,
		Features: virtq.Features{EventIdx: s.features&featEventIdx != 0, Indirect: s.features&featIndirect != 0},
		Mem:      w.view.mem.Table,
		Rings:    w.view.mem.rings(w.ring.addr, w.ring.num),
		Next:     w.ring.base,
		Inflight: notes,
	})
	w.ring.call.tell() // in case that an earlier one was lost
	return err
}

// move makes mem the memory of what is taken from now on.
func (w *worker) move(mem *memory) {
	old := w.view
	w.view = &view{mem: mem.hold()}
	w.guard(func() error { return w.q.Move(mem.Table, mem.rings(w.ring.addr, w.ring.num)) })
	old.drop(w.view)
}

// drop lets the memory go when no job uses it and it is not the current one.
func (v *view) drop(current *view) {
	if v != current && v.jobs == 0 {
		v.mem.release()
	}
}

// takes reports whether there is room for another request.
func (w *worker) takes() bool {
	return !w.stopping && !w.dead && w.ring.enabled && w.jobs < maxJobs && w.bytes < maxBytes
}

// round gives back what has ended, takes what is there, and tells the driver. It
// reports whether there was anything to do.
func (w *worker) round() bool {
	w.collect()
	busy := len(w.pending) > 0
	for len(w.pending) > 0 {
		j := w.pending[len(w.pending)-1]
		w.pending = w.pending[:len(w.pending)-1]
		w.settle(j)
	}
	w.guard(func() error {
		n, err := w.fetch()
		busy = busy || n > 0
		if err == nil && w.q.Publish() {
			w.ring.call.tell()
		}
		return err
	})
	return busy
}

func (w *worker) collect() {
	w.late.mu.Lock()
	w.pending = append(w.pending, w.late.list...)
	clear(w.late.list)
	w.late.list = w.late.list[:0]
	w.late.mu.Unlock()
}

// fetch starts requests that are available, a batch of them at most.
func (w *worker) fetch() (n int, err error) {
	for n < batch && w.takes() {
		j := w.job()
		ok, err := w.q.Next(&j.chain)
		if !ok {
			w.free = append(w.free, j)
			return n, err
		}
		n++
		w.begins(j)
		w.start(j)
	}
	return n, nil
}

// job is one that is free.
func (w *worker) job() *job {
	if n := len(w.free); n > 0 {
		j := w.free[n-1]
		w.free = w.free[:n-1]
		return j
	}
	return &job{worker: w}
}

func (w *worker) begins(j *job) {
	j.view = w.view
	j.view.jobs++
	w.jobs++
	w.bytes += j.chain.Bytes
	w.current = j
}

// recycle makes j free.
func (w *worker) recycle(j *job) {
	w.current = nil
	v := j.view
	j.view = nil
	v.jobs--
	v.drop(w.view)
	w.jobs--
	w.bytes -= j.chain.Bytes
	j.forget()
	w.free = append(w.free, j)
}

// sleep waits for a kick, an end, or a command.
func (w *worker) sleep() {
	kick := -1
	if w.takes() {
		nothing := false
		w.guard(func() error {
			if nothing = w.q.Park(); !nothing {
				w.q.Unpark()
			}
			return nil
		})
		if !nothing {
			return
		}
		kick = w.ring.kick
	}
	if !w.late.sleep() {
		return
	}
	err := await(kick, w.own)
	w.late.awake()
	if kick >= 0 {
		w.guard(func() error {
			w.q.Unpark()
			return err
		})
	}
}

// sleep says that the worker is about to wait; false: there is something to do.
func (l *late) sleep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asleep = len(l.list) == 0
	return l.asleep
}

func (l *late) awake() {
	l.mu.Lock()
	l.asleep = false
	l.mu.Unlock()
}

// ended gives the worker a job back from another goroutine. The eventfd is there
// until the job is collected, which takes the lock.
func (w *worker) ended(j *job) {
	w.late.mu.Lock()
	defer w.late.mu.Unlock()
	w.late.list = append(w.late.list, j)
	if w.late.asleep {
		w.late.asleep = false
		_, _ = unix.Write(w.own, one[:]) // does not block
	}
}

// end lets everything go when no job is under way.
func (w *worker) end() {
	if w.q != nil {
		w.position = w.q.Position()
	}
	w.view.mem.release()
	w.inflight.release()
}
