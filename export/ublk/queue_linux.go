package ublk

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/internal/uring"
)

const (
	descSize    = 24
	maxDepth    = 4096 // of the driver; determines the offset of each queue's descriptors
	ioPayload   = 16
	cmdFetch    = 0x20
	cmdCommit   = 0x21 // commit and fetch
	wakeUp      = ^uint64(0)
	setFlusher  = 57 // PR_SET_IO_FLUSHER
	resultAbort = -int32(unix.ENODEV)

	calmTime = 30 * time.Millisecond // see calm
)

// queue serves one queue of a device on its own goroutine.
type queue struct {
	server *Server
	id     int
	failed error // set before the queue is ready
	waker  *uring.Waker
	late   late

	// The fields below belong to the queue's goroutine.

	ring  *uring.Ring
	descs []byte // descriptors by tag, written by the kernel
	data  []byte // the memory of buffers
	buffers
	copies  bool // the server copies data: see flagUserCopy
	tags    []request
	gone    int        // number of tags that the server has lost
	held    int        // number of requests that are not answered
	left    int        // number of requests that arrived while the server was leaving, for the next one
	waiting []*request // for a shared buffer, in the order of their arrival

	pending []*request // requests whose bio has ended but which are not answered
	leaving bool
}

// late passes events from other goroutines to a queue.
type late struct {
	mu      sync.Mutex
	list    []*request // guarded by mu; requests whose bio has ended
	leaving bool       // guarded by mu; the server leaves
	closed  bool       // guarded by mu; the queue has ended
}

func newQueue(s *Server, id int) *queue {
	depth := s.info.Depth
	q := &queue{server: s, id: id, tags: make([]request, depth), waiting: make([]*request, 0, depth), copies: s.info.Flags&flagUserCopy != 0}
	for i := range q.tags {
		q.tags[i].queue, q.tags[i].tag = q, uint16(i)
	}
	q.waker, q.failed = uring.NewWaker()
	q.late.closed = q.failed != nil
	return q
}

// run serves until the device is stopped or the server leaves. It does not unlock its thread,
// so that the thread exits. It calls opened after setting q.failed, and ready when the driver has
// the first commands. None are sent unless all queues are open: see Control.Recover.
func (q *queue) run(opened *sync.WaitGroup, ready func()) {
	runtime.LockOSThread()
	if q.failed == nil {
		q.failed = q.open()
	}
	opened.Done()
	opened.Wait()
	open := q.server.failed() == nil
	if open {
		q.fetch()
	}
	ready()
	if open {
		q.serve()
	}
	q.close()
}

func (q *queue) open() (err error) {
	// When the thread allocates memory, the kernel must not write to this device to
	// reclaim some. The call fails without CAP_SYS_RESOURCE; serve nevertheless.
	_ = unix.Prctl(setFlusher, 1, 0, 0, 0)
	s, page := q.server, os.Getpagesize()
	size := buffersLen(len(q.tags), int(s.info.MaxBytes), q.copies)
	if q.data, err = unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		return fmt.Errorf("memory for requests: %w", err)
	}
	q.buffers = newBuffers(q.data, len(q.tags), int(s.info.MaxBytes), q.copies)
	if q.ring, err = uring.New(uring.Options{Entries: len(q.tags) + 1}); err != nil {
		return err
	}
	length := roundUp(len(q.tags)*descSize, page)
	off := int64(q.id) * int64(roundUp(maxDepth*descSize, page))
	if q.descs, err = unix.Mmap(s.fd, off, length, unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("mmap of /dev/ublkc%d: %w", s.info.ID, err)
	}
	return nil
}

// fetch sends the first command for each tag.
func (q *queue) fetch() {
	q.listen()
	for i := range q.tags {
		q.command(cmdFetch, &q.tags[i], 0)
	}
	must(q.ring.Enter(0))
}

func must(err error) {
	if err != nil {
		panic("ublk: " + err.Error()) // requests can neither complete nor fail
	}
}

func (q *queue) listen() {
	e := q.ring.Entry()
	q.waker.Listen(e)
	e.User = wakeUp
}

// command prepares a fetch or commit command for a request's tag.
func (q *queue) command(nr uint32, r *request, result int32) {
	var cmd [ioPayload]byte
	ne.PutUint16(cmd[0:], uint16(q.id))
	ne.PutUint16(cmd[2:], r.tag)
	ne.PutUint32(cmd[4:], uint32(result))
	if !q.copies {
		ne.PutUint64(cmd[8:], uint64(uintptr(unsafe.Pointer(unsafe.SliceData(q.of(r.tag))))))
	}
	e := q.ring.Entry() // not nil: there is an entry for each tag
	e.Command(q.server.fd, number(q.server.legacy, dirWrite, ioPayload, nr), cmd)
	e.User = uint64(r.tag)
}

func (q *queue) serve() {
	for {
		q.waker.Sleep()
		q.answerLate()
		q.startWaiting()
		if q.held == 0 && (q.leaving || q.gone == len(q.tags)) {
			q.waker.Awake()
			q.calm()
			return
		}
		must(q.ring.Enter(1))
		q.waker.Awake()
		q.reap()
	}
}

func (q *queue) reap() {
	for c, ok := q.ring.Next(); ok; c, ok = q.ring.Next() {
		q.completed(c)
	}
}

// calm returns when all queues have stopped answering, and no request has arrived for a while: drivers
// before Linux 6.16 may lose one that arrives while they end a server. Those whose requests are not
// answered send no others, but those who have just got an answer may.
func (q *queue) calm() {
	s := q.server
	s.serving.Done()
	s.serving.Wait()
	for quiet := time.Duration(0); s.loses && q.gone < len(q.tags) && quiet < calmTime; quiet += time.Millisecond {
		before := q.left
		must(q.ring.Collect())
		if q.reap(); q.left != before {
			quiet = 0
		}
		time.Sleep(time.Millisecond) // there is no notification that nobody sends requests
	}
}

// answerLate answers requests whose bio ended on other goroutines.
func (q *queue) answerLate() {
	q.late.mu.Lock()
	q.pending, q.late.list = q.late.list, q.pending[:0]
	q.leaving = q.late.leaving
	q.late.mu.Unlock()
	for _, r := range q.pending {
		q.ended(r)
	}
}

// startWaiting starts requests for which there are buffers now. A server that leaves lets the
// kernel pass them to the next one.
func (q *queue) startWaiting() {
	if q.leaving {
		q.held -= len(q.waiting)
		q.waiting = q.waiting[:0]
	}
	for len(q.waiting) > 0 && len(q.shared) > 0 {
		r := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		q.transfer(r)
	}
}

func (q *queue) completed(c uring.Completion) {
	switch {
	case c.User == wakeUp:
		if !c.More() {
			q.listen()
		}
	case c.Result == 0 && q.leaving:
		q.left++
	case c.Result == 0:
		q.held++
		q.start(&q.tags[c.User])
	default:
		q.lost(c)
	}
}

// lost ends the service of a tag. The driver aborts all commands when a device is stopped, and may
// abort some of a server that recovers it: see the package comment. Requests for the tag would then
// wait for ever, as they would after a refused command, so the server leaves, and another recovers them.
func (q *queue) lost(c uring.Completion) {
	q.gone++
	s := q.server
	switch aborted := c.Result == resultAbort; {
	case aborted && s.up.Load():
		return
	case aborted:
		s.log.Warn("the kernel took back a request slot of a block device that it was to recover", "device", s.info.ID)
	default:
		s.log.Error("the kernel refused a request slot of a block device", "device", s.info.ID, "reason", c.Err())
	}
	s.leave()
}

func (q *queue) leave() {
	q.late.mu.Lock()
	defer q.late.mu.Unlock()
	q.late.leaving = true
	if !q.late.closed {
		q.waker.Wake()
	}
}

// close frees the queue's resources. Until the kernel notices the exit of the thread, it may
// still copy data of new requests to the buffers of fetched tags. The buffers therefore stay
// mapped, where the kernel copies, unless all tags are gone.
func (q *queue) close() {
	q.late.mu.Lock()
	q.late.closed = true
	q.late.mu.Unlock()
	if q.ring != nil {
		q.ring.Close()
	}
	if q.descs != nil {
		_ = unix.Munmap(q.descs) // cannot fail
	}
	if q.data != nil && (q.copies || q.ring == nil || q.gone == len(q.tags)) {
		_ = unix.Munmap(q.data)
	}
	if q.waker != nil {
		q.waker.Close()
	}
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }
