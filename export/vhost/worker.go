//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// Bounds of a ring's requests in progress. Further ones wait in the ring.
const (
	maxJobs  = 256
	maxBytes = 32 << 20 // may be exceeded by one request
	batch    = 32       // requests handled before checking everything else
	showEach = 8        // requests handled before the driver sees their answers: see [worker.early]
)

// worker is the goroutine of a running ring. It owns all fields except late.
type worker struct {
	ring     *ring
	features uint64      // features accepted when it started
	same     bool        // the front end has had the device from this process before
	own      int         // eventfd that wakes it; closed by the session
	cmds     chan func() // to run between two requests, sent by the session
	done     chan struct{}
	late     late
	polling  polling

	q        virtq.Queue // nil: it could not be made
	view     *view
	inflight *inflight // nil: not recorded
	free     []*job
	jobs     int    // in progress
	bytes    uint64 // of those, as in their descriptors
	current  *job   // the one for which guest memory is being accessed
	pending  []*job // ended, but not put back yet
	commit   commit // of writes that are complete
	stopping bool
	moving   bool   // it stops for another server, which repeats what fails
	kept     []*job // for that server
	dead     bool   // the ring or the memory is broken: neither is accessed again
	position uint32 // final position
	dry      bool   // the last batch was not full
}

// view is a memory and the number of jobs that use it.
type view struct {
	mem  *memory
	jobs int
}

// late is the jobs that ended on other goroutines.
type late struct {
	mu     sync.Mutex
	list   []*job // guarded by mu
	asleep bool   // guarded by mu: the worker waits to be woken
}

func newWorker(r *ring, own int) *worker {
	w := &worker{
		ring: r, features: r.session.features, same: r.session.known, own: own, cmds: make(chan func(), 1), done: make(chan struct{}),
		dry: true, view: &view{mem: r.session.mem.hold()}, position: r.base, inflight: r.session.inflight.hold(),
	}
	w.commit.flush.worker = w
	w.polling.limit = r.session.poll
	return w
}

// do runs f on the worker, between two requests; false: it has ended.
func (w *worker) do(f func()) bool {
	done := make(chan struct{})
	select {
	case w.cmds <- func() {
		f()
		close(done)
	}:
	case <-w.done:
		return false
	}
	signal(w.own)
	select {
	case <-done:
		return true
	case <-w.done:
		return false
	}
}

func (w *worker) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	debug.SetPanicOnFault(true)
	defer close(w.done)
	w.guard(w.begin)
	for !w.stopping || w.jobs > len(w.kept) {
		select {
		case f := <-w.cmds:
			f()
			continue
		default:
		}
		if !w.round() {
			w.wait()
		}
	}
	w.end()
}

// guard runs f, which accesses guest memory, unless the worker is dead. A fault or an
// error in f makes it dead.
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

// faulted handles a panic caused by guest memory.
func (w *worker) faulted(p any) {
	fault, ok := p.(interface{ Addr() uintptr })
	if !ok || !w.inGuest(fault.Addr()) {
		panic(p)
	}
	w.breakDown(errors.New("guest memory is gone: the front end has truncated its file"))
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
	if log := w.ring.dirty.log; w.inflight.holds(addr) || log != nil && log.holds(addr) {
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
	w.q, err = virtq.NewQueue(virtq.Config{
		Size:     w.ring.num,
		Features: virtq.Features{EventIdx: w.features&featEventIdx != 0, Indirect: w.features&featIndirect != 0, Packed: w.packed()},
		Mem:      w.view.mem.Table,
		Rings:    w.rings(w.view.mem),
		Next:     w.ring.base,
		Inflight: w.inflight.of(w.ring.index),
	})
	if err == nil {
		err = w.known()
	}
	w.ring.call.tell() // an earlier notification may have been lost
	return err
}

func (w *worker) packed() bool { return w.features&featPacked != 0 }

func (w *worker) rings(mem *memory) virtq.Rings {
	return mem.rings(w.ring.addr, w.ring.num, w.packed())
}

// known refuses a ring that the guest has used with another process if that had the disk in
// its memory.
func (w *worker) known() error {
	r, s := w.ring, w.ring.session
	switch {
	case w.q.Fresh():
		r.begun = true
	case r.begun || w.same:
	case s.export.Device.Limits().ProcessMemory:
		return errForgotten
	default:
		s.cache.unknown(w.features, w.inflight)
	}
	return nil
}

// move makes mem the memory of the requests taken from now on.
func (w *worker) move(mem *memory) {
	old := w.view
	w.view = &view{mem: mem.hold()}
	w.guard(func() error { return w.q.Move(mem.Table, w.rings(mem)) })
	old.drop(w.view)
}

// drop releases the memory when no job uses it and it is not the current one.
func (v *view) drop(current *view) {
	if v != current && v.jobs == 0 {
		v.mem.release()
	}
}

// takes reports whether another request may be taken.
func (w *worker) takes() bool {
	return !w.stopping && !w.dead && w.ring.enabled && w.jobs < maxJobs && w.bytes < maxBytes
}

// round puts back what has ended, takes available requests, and notifies the driver.
// It reports whether there was anything to do.
func (w *worker) round() bool {
	w.collect()
	busy := len(w.pending) > 0
	for len(w.pending) > 0 {
		j := w.pending[len(w.pending)-1]
		w.pending = w.pending[:len(w.pending)-1]
		w.ended(j)
	}
	w.guard(func() error {
		n, err := w.fetch()
		busy = busy || n > 0
		return err
	})
	w.answerWrites()
	w.show()
	return busy
}

// show lets the driver see the answers.
func (w *worker) show() {
	w.guard(func() error {
		tell := w.q.Publish()
		w.markRing()
		if tell {
			w.ring.call.tell()
		}
		return nil
	})
}

func (w *worker) collect() {
	w.late.mu.Lock()
	w.pending = append(w.pending, w.late.list...)
	clear(w.late.list)
	w.late.list = w.late.list[:0]
	w.late.mu.Unlock()
}

// fetch starts up to a batch of available requests.
func (w *worker) fetch() (n int, err error) {
	for n < batch && w.takes() {
		j := w.job()
		ok, err := w.q.Next(&j.chain)
		if !ok {
			w.free, w.dry = append(w.free, j), true
			return n, err
		}
		n++
		w.begins(j)
		w.start(j)
		if w.early(n) {
			w.answerWrites()
			w.show()
		}
	}
	w.dry = n < batch
	return n, nil
}

// early reports whether the driver is to see answers after n requests of a batch, to go on
// beside the rest: sooner if it lets the ring run dry, since each time may wake it up.
func (w *worker) early(n int) bool {
	return n%showEach == 0 && (w.dry || n%(2*showEach) == 0)
}

// job returns a free job.
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

// recycle makes j free for reuse.
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

// began is the zero of the clock of polling.
var began = time.Now()

// watchers are the workers of this process that watch their rings.
var watchers = seats{n: max(1, int32(spare(min(runtime.GOMAXPROCS(0), runtime.NumCPU()))))}

// wait waits until there may be something to do.
func (w *worker) wait() {
	if w.polling.limit == 0 {
		w.sleep()
		return
	}
	if !w.polling.begin(time.Since(began)) || !w.watch() {
		w.sleep()
	}
	w.polling.end(time.Since(began))
}

// watch waits as long as polling allows and reports whether there is something to do.
func (w *worker) watch() (found bool) {
	if !watchers.take() {
		return false
	}
	defer watchers.leave()
	w.guard(func() error {
		for !found && w.polling.goOn(time.Since(began)) {
			found = len(w.cmds) > 0 || w.late.any() || w.takes() && w.q.Available()
		}
		return nil
	})
	return found
}

// sleep waits for a kick, an end of a job, or a command.
func (w *worker) sleep() {
	kick := -1
	if w.takes() {
		nothing := false
		w.guard(func() error {
			if nothing = w.q.Park(); !nothing {
				w.q.Unpark()
			}
			w.markRing()
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
			w.markRing()
			return err
		})
	}
}

// sleep records that the worker is about to wait; false if there is something to do.
func (l *late) sleep() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asleep = len(l.list) == 0
	return l.asleep
}

func (l *late) any() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.list) > 0
}

func (l *late) awake() {
	l.mu.Lock()
	l.asleep = false
	l.mu.Unlock()
}

// endedLate passes a job back to the worker from another goroutine. The eventfd stays
// open until the job is collected, which takes the lock.
func (w *worker) endedLate(j *job) {
	w.late.mu.Lock()
	defer w.late.mu.Unlock()
	w.late.list = append(w.late.list, j)
	if w.late.asleep {
		w.late.asleep = false
		_, _ = unix.Write(w.own, one[:]) // does not block
	}
}

// end releases everything once no job is in progress.
func (w *worker) end() {
	if w.q != nil {
		w.position = w.q.Position()
	}
	for _, j := range w.kept {
		w.recycle(j)
	}
	w.view.mem.release()
	w.inflight.release()
}
