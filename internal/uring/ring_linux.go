package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Options configure a ring.
type Options struct {
	Entries int  // size of the submission queue; the kernel rounds it up to a power of two
	Big     bool // use entries of 128 bytes, for [Entry.BigCommand]
}

// Constants of include/uapi/linux/io_uring.h.
const (
	setupSubmitAll    = 1 << 7  // Linux 5.18
	setupCoopTaskrun  = 1 << 8  // 5.19
	setupBig          = 1 << 10 // 5.19
	setupSingleIssuer = 1 << 12 // 6.0
	setupDeferTaskrun = 1 << 13 // 6.1

	featSingleMmap = 1 << 0
	featNoDrop     = 1 << 1

	offsetRings   = 0
	offsetEntries = 0x10000000

	enterGetEvents = 1
)

// setups are the flags to try, in order of preference: kernels refuse unknown flags.
var setups = [...]uint32{setupSubmitAll | setupSingleIssuer | setupDeferTaskrun, setupSubmitAll | setupCoopTaskrun, 0}

type queueOffsets struct {
	head, tail, mask, entries, flags, dropped, array, resv1 uint32
	userAddr                                                uint64
}

type completionOffsets struct {
	head, tail, mask, entries, overflow, cqes, flags, resv1 uint32
	userAddr                                                uint64
}

type params struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	resv                                                                   [3]uint32
	sq                                                                     queueOffsets
	cq                                                                     completionOffsets
}

// Ring is a submission queue and a completion queue.
type Ring struct {
	fd      int
	rings   []byte // mapping of the indices and the completions
	entries []byte // mapping of the submission entries

	sqHead, sqTail *uint32 // atomic; the kernel advances the head
	sqSize, sqMask uint32
	entrySize      uint32 // bytes
	tail           uint32 // after the last prepared entry; Enter publishes it

	cqHead, cqTail *uint32 // atomic; the kernel advances the tail
	cqMask         uint32
	cqes           []Completion
}

// New creates a ring that only the calling thread may use.
func New(o Options) (r *Ring, err error) {
	for _, flags := range setups {
		if r, err = newRing(o, flags); !errors.Is(err, unix.EINVAL) {
			break
		}
	}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return r, err
}

func newRing(o Options, flags uint32) (*Ring, error) {
	r := &Ring{entrySize: 64}
	if o.Big {
		r.entrySize = 128
		flags |= setupBig
	}
	p := &params{flags: flags}
	n, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(o.Entries), uintptr(unsafe.Pointer(p)), 0)
	if e != 0 {
		return nil, os.NewSyscallError("io_uring_setup", e)
	}
	r.fd = int(n)
	if err := r.mapAll(p); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Ring) mapAll(p *params) (err error) {
	if p.features&(featSingleMmap|featNoDrop) != featSingleMmap|featNoDrop {
		return fmt.Errorf("%w: it requires Linux 5.5", ErrUnavailable)
	}
	size := max(p.sq.array+p.sqEntries*4, p.cq.cqes+p.cqEntries*uint32(unsafe.Sizeof(Completion{})))
	if r.rings, err = r.mmap(offsetRings, size); err != nil {
		return err
	}
	if r.entries, err = r.mmap(offsetEntries, p.sqEntries*r.entrySize); err != nil {
		return err
	}
	word := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.rings[off])) }
	r.sqHead, r.sqTail, r.sqMask, r.sqSize = word(p.sq.head), word(p.sq.tail), *word(p.sq.mask), p.sqEntries
	r.cqHead, r.cqTail, r.cqMask = word(p.cq.head), word(p.cq.tail), *word(p.cq.mask)
	r.cqes = unsafe.Slice((*Completion)(unsafe.Pointer(&r.rings[p.cq.cqes])), p.cqEntries)
	for i := range p.sqEntries {
		*word(p.sq.array + 4*i) = i // use the entries in order
	}
	return nil
}

func (r *Ring) mmap(off int64, size uint32) ([]byte, error) {
	m, err := unix.Mmap(r.fd, off, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	return m, os.NewSyscallError("mmap", err)
}

// Close frees the ring. See the package comment for requests that have not completed.
func (r *Ring) Close() {
	for _, m := range [...][]byte{r.rings, r.entries} {
		if m != nil {
			_ = unix.Munmap(m) // cannot fail
		}
	}
	unix.Close(r.fd)
}

// Entry returns the next entry, zeroed, or nil if the queue is full; Enter then makes room.
func (r *Ring) Entry() *Entry {
	if r.tail-atomic.LoadUint32(r.sqHead) == r.sqSize {
		return nil
	}
	at := r.entries[(r.tail&r.sqMask)*r.entrySize:][:r.entrySize]
	clear(at)
	r.tail++
	return (*Entry)(unsafe.Pointer(&at[0]))
}

// Enter submits the prepared entries and waits for at least wait completions. It returns nil
// early if a signal arrives. If the kernel is short of memory, it also returns nil, and the
// next call submits the remaining entries.
func (r *Ring) Enter(wait int) error {
	atomic.StoreUint32(r.sqTail, r.tail)
	return r.enter(r.tail-atomic.LoadUint32(r.sqHead), wait)
}

// Collect lets the kernel deliver completions without submitting the prepared entries.
func (r *Ring) Collect() error { return r.enter(0, 0) }

func (r *Ring) enter(submit uint32, wait int) error {
	_, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(wait), enterGetEvents, 0, 0)
	switch e {
	case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY, unix.ENOMEM: // entries that were not submitted stay in the queue
		return nil
	}
	return os.NewSyscallError("io_uring_enter", e)
}

// Completion is the result of a request (struct io_uring_cqe).
type Completion struct {
	User   uint64 // of the entry
	Result int32  // a non-negative result such as a number of bytes, or a negative errno
	flags  uint32
}

const completionMore = 2

// Err returns the error of a failed request, or nil.
func (c Completion) Err() error {
	if c.Result < 0 {
		return unix.Errno(-c.Result)
	}
	return nil
}

// More reports whether the request will have further completions.
func (c Completion) More() bool { return c.flags&completionMore != 0 }

// Next returns the next completion, or false if there is none. It does not wait.
func (r *Ring) Next() (Completion, bool) {
	head := *r.cqHead // only this goroutine stores it
	if head == atomic.LoadUint32(r.cqTail) {
		return Completion{}, false
	}
	c := r.cqes[head&r.cqMask]
	atomic.StoreUint32(r.cqHead, head+1)
	return c, true
}
