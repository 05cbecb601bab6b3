//go:build linux

package fuse

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// conn is the server's end of a mount: it reads requests from /dev/fuse, has the FUSE
// library decode them and call root, and writes the replies. It is not the library's own
// reader, because that can be neither stopped nor begun between two requests.
//
// A goroutine that has read a request handles it, and sees to it that another one waits
// for the next. Descriptors do not block, so that readers can wait for stop as well.
//
//	running ── stop ──► no more requests are read ── those in flight end ──► stopped
//	   ▲                    └── what fails is kept ──┐
//	   └────────────────── start: that is repeated ◄─┘
type conn struct {
	fd       int
	library  *fuse.ProtocolServer
	init     []byte // the kernel's first request, with the features agreed on
	stopFD   int    // an eventfd; readable: no more requests are read
	waiting  atomic.Int32
	stopping atomic.Bool
	gone     atomic.Bool   // the kernel has ended the connection
	ended    chan struct{} // closed after that, when no goroutine is left

	mu     sync.Mutex
	idle   sync.Cond // mu; active has become 0
	active int       // guarded by mu; goroutines
	again  [][]byte  // guarded by mu; requests that are to be repeated

	large   sync.Pool // for requests
	replies replies
}

// maxWaiting is the most goroutines that wait for a request.
const maxWaiting = 2

// Sizes in bytes. smallRequest is what all requests but long writes fit in.
const (
	inHeader     = int(unsafe.Sizeof(fuse.InHeader{}))
	outHeader    = int(unsafe.Sizeof(fuse.OutHeader{}))
	writeHeader  = int(unsafe.Sizeof(fuse.WriteIn{}))
	smallRequest = 512
	smallReply   = 1024
)

// Operations of requests, from the kernel's fuse.h.
const (
	opLookup     = 1
	opGetattr    = 3
	opOpen       = 14
	opRead       = 15
	opWrite      = 16
	opFsync      = 20
	opGetxattr   = 22
	opListxattr  = 23
	opFlush      = 25
	opInit       = 26
	opReaddir    = 28
	opIoctl      = 39
	opFallocate  = 43
	opReaddirPls = 44
	opLseek      = 46
)

func newConn(fd int, library *fuse.ProtocolServer) (*conn, error) {
	unix.CloseOnExec(fd)
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	c := &conn{fd: fd, stopFD: stop, library: library, ended: make(chan struct{})}
	c.idle.L = &c.mu
	c.large.New = newLarge
	return c, err
}

// newLarge is a buffer for a request of any length, in which the data of a write are at
// the beginning of a page.
func newLarge() any {
	p := make([]byte, maxRequest+2*pageSize)
	p = p[pageSize-writeHeader:]
	return &p
}

// replies are buffers for replies with data, by the power of two of their length, from
// pageSize to maxRequest.
type replies [9]sync.Pool

func (p *replies) take(n int) (buf *[]byte, from *sync.Pool) {
	kind := 0
	for pageSize<<kind < n && kind < len(p)-1 {
		kind++
	}
	buf, _ = p[kind].Get().(*[]byte)
	if buf == nil {
		b := make([]byte, pageSize<<kind)
		buf = &b
	}
	return buf, &p[kind]
}

// request is a request and room for its reply.
type request struct {
	in    []byte
	small [smallRequest]byte
	head  [outHeader]byte
	reply [smallReply]byte
}

func (r *request) op() uint32 { return binary.NativeEndian.Uint32(r.in[4:]) }

// data is the most bytes of data that the reply may have.
func (r *request) data() int {
	at := 0
	switch r.op() {
	case opRead, opReaddir, opReaddirPls:
		at = int(unsafe.Offsetof(fuse.ReadIn{}.Size))
	case opGetxattr, opListxattr:
		at = inHeader
	case opIoctl:
		at = int(unsafe.Offsetof(fuse.IoctlIn{}.OutSize))
	}
	if at == 0 || len(r.in) < at+4 {
		return 0
	}
	return min(int(binary.NativeEndian.Uint32(r.in[at:])), maxRequest)
}

// start reads requests, after it has repeated those that are left.
func (c *conn) start() {
	c.stopping.Store(false)
	c.mu.Lock()
	again := c.again
	c.again = nil
	c.mu.Unlock()
	for _, in := range again {
		c.run(func() { c.handle(&request{in: in}) })
	}
	c.another()
}

// another starts a reader.
func (c *conn) another() {
	c.waiting.Add(1)
	c.run(c.read)
}

func (c *conn) run(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active++
	go func() {
		f()
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.active--; c.active > 0 {
			return
		}
		c.idle.Broadcast()
		if c.gone.Load() {
			c.close()
			close(c.ended)
		}
	}()
}

// read is a reader's goroutine. It is counted as waiting.
func (c *conn) read() {
	for {
		large := c.large.Get().(*[]byte)
		n, err := c.next(*large)
		if err != nil {
			c.waiting.Add(-1)
			c.large.Put(large)
			return
		}
		if c.waiting.Add(-1) == 0 {
			c.another()
		}
		r := &request{in: (*large)[:n]}
		if n <= smallRequest {
			r.in = r.small[:copy(r.small[:], r.in)]
			c.large.Put(large)
			large = nil
		}
		c.handle(r)
		if large != nil {
			c.large.Put(large)
		}
		if c.waiting.Add(1) > maxWaiting {
			c.waiting.Add(-1)
			return
		}
	}
}

var errStopped = errors.New("fuse: the server no longer reads requests")

// next reads a request.
func (c *conn) next(buf []byte) (int, error) {
	for !c.stopping.Load() {
		n, err := syscall.Read(c.fd, buf)
		switch {
		case err == nil && n >= inHeader:
			return n, nil
		case err == syscall.EAGAIN:
			err = c.await()
		}
		if err != nil && err != syscall.EINTR && err != syscall.ENOENT { // ENOENT: it was interrupted
			c.gone.Store(true)
			return 0, err
		}
	}
	return 0, errStopped
}

// await waits for a request, or stop.
func (c *conn) await() error {
	fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}, {Fd: int32(c.stopFD), Events: unix.POLLIN}}
	_, err := unix.Poll(fds, -1)
	return err
}

// handle carries out a request and answers it.
func (c *conn) handle(r *request) {
	out := [][]byte{r.head[:], r.reply[:]}
	if n := r.data(); n > len(r.reply) {
		buf, pool := c.replies.take(n)
		defer pool.Put(buf)
		out[1] = *buf
	}
	n, st := c.perform(r, out)
	if !st.Ok() {
		n = outHeader
		binary.NativeEndian.PutUint32(r.head[:], uint32(n))
		binary.NativeEndian.PutUint32(r.head[4:], uint32(-int32(st)))
		copy(r.head[8:], r.in[8:16])
	}
	if n == 0 {
		return // nobody expects an answer
	}
	if c.stopping.Load() && r.repeatable() && binary.NativeEndian.Uint32(r.head[4:]) != 0 {
		c.mu.Lock()
		c.again = append(c.again, append([]byte(nil), r.in...))
		c.mu.Unlock()
		return
	}
	out[1] = out[1][:n-outHeader]
	_, _ = unix.Writev(c.fd, out) // fails if nobody waits any more
}

// perform has the library carry out a request. There is nothing to do at a close, as only
// fsync makes data durable; once told so, the kernel does not ask any more, and a close does
// not wait for a server that is away.
func (c *conn) perform(r *request, out [][]byte) (int, fuse.Status) {
	if r.op() == opFlush {
		return 0, fuse.ENOSYS
	}
	return c.library.HandleRequest([][]byte{r.in}, out)
}

// repeatable reports whether a request that has failed can be repeated by the next
// server: all I/O, and what finds files.
func (r *request) repeatable() bool {
	switch r.op() {
	case opLookup, opGetattr, opOpen, opRead, opWrite, opFsync, opFallocate, opLseek:
		return true
	}
	return false
}

// stop reads no more requests, and waits until those in flight have ended. Those that
// fail from now on are kept. It returns false, and the server goes on, if ctx ends first.
func (c *conn) stop(ctx context.Context) bool {
	c.stopping.Store(true)
	_, _ = unix.Write(c.stopFD, binary.NativeEndian.AppendUint64(nil, 1)) // it is 0, so there is room
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.idle.Broadcast()
	})()
	c.mu.Lock()
	for c.active > 0 && ctx.Err() == nil {
		c.idle.Wait()
	}
	stopped := c.active == 0
	c.mu.Unlock()
	if !stopped {
		_, _ = unix.Read(c.stopFD, make([]byte, 8))
		c.start()
	}
	return stopped
}

// close releases the descriptors.
func (c *conn) close() {
	unix.Close(c.fd)
	unix.Close(c.stopFD)
}

// greet answers the kernel's first request.
func (c *conn) greet() error {
	buf := *newLarge().(*[]byte)
	for {
		n, err := syscall.Read(c.fd, buf)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if err := c.await(); err != nil && err != syscall.EINTR {
				return err
			}
			continue
		case err != nil:
			return err
		}
		c.init = append([]byte(nil), buf[:n]...)
		return c.agree(true)
	}
}

// agree has the library learn the kernel's features, and answers if this is the first
// server of the mount. What is not agreed on now is no longer in init, so that later
// versions of this program take it so as well.
func (c *conn) agree(answer bool) error {
	r := &request{in: append([]byte(nil), c.init...)}
	out := [][]byte{r.head[:], r.reply[:]}
	n, st := c.library.HandleRequest([][]byte{r.in}, out)
	if !st.Ok() || r.op() != opInit {
		return errors.New("the kernel's first request is not understood; its FUSE may be too old or too new")
	}
	if code := int32(binary.NativeEndian.Uint32(r.head[4:])); code != 0 {
		return syscall.Errno(-code)
	}
	o := (*fuse.InitOut)(unsafe.Pointer(&r.reply[0]))
	i := (*fuse.InitIn)(unsafe.Pointer(&c.init[0]))
	i.Flags &= o.Flags
	if len(c.init) >= int(unsafe.Offsetof(i.Flags2))+4 {
		i.Flags2 &= o.Flags2
	}
	if !answer {
		return nil
	}
	out[1] = out[1][:n-outHeader]
	_, err := unix.Writev(c.fd, out)
	return err
}
