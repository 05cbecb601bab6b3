//go:build ceph && cgo

package rbddev

/*
#include "librbd.h"
#include <stdlib.h>
*/
import "C"

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/cgo"
	"slices"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/blk"
)

const (
	maxTransfer  = 1 << 20  // bytes in a read or write; a batch of them is what librbd copies
	maxObjects   = 256      // that a discard, a write of zeroes or a map touches
	granularity  = 64 << 10 // bytes of discards: Ceph's rbd_discard_granularity_bytes
	maxSegments  = 1024     // librbd's limit, that of readv(2)
	physicalUnit = 4096     // bytes; what an OSD allocates at least
)

// librbd is an open image.
type librbd struct {
	*cluster
	image   C.rbd_image_t
	event   *os.File // an eventfd, which librbd writes to when I/O has ended
	stopped atomic.Bool
	object  uint64 // bytes
	l       blk.Limits
	owner   string // the holder of the lock, as the cluster names it; "": none
	changed func()
	self    cgo.Handle // of changed
	watched C.uint64_t
	calls   [Depth]call
	done    [batch]C.struct_udm_ended // of reap
}

// call is the memory of a bio that librbd has.
type call struct {
	pin    runtime.Pinner
	iov    []segment // C's memory
	bio    *blk.Bio  // to which copied belongs; nil: there is none
	copied []byte    // the data of a bio with more segments than librbd takes
}

// segment is a struct iovec. The address is no pointer for Go: what C's memory held before
// must not be taken for one.
type segment struct{ at, bytes uintptr }

func open(o Options, id Identity, write bool) (_ image, err error) {
	c, err := connect(o)
	if err != nil {
		return nil, err
	}
	l := &librbd{cluster: c}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if err := l.open(o, id, write); err != nil {
		return nil, err
	}
	if write {
		if err := l.lock(o); err != nil {
			return nil, err
		}
	}
	var info C.rbd_image_info_t
	if err := failed(C.rbd_stat(l.image, &info, C.size_t(unsafe.Sizeof(info))), "the image's size"); err != nil {
		return nil, err
	}
	l.object = uint64(info.obj_size)
	l.l = limitsOf(uint64(info.size), l.object, !write)
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l.event = os.NewFile(uintptr(fd), "rbd")
	if err := failed(C.rbd_set_image_notification(l.image, C.int(fd), C.EVENT_TYPE_EVENTFD), "librbd"); err != nil {
		return nil, err
	}
	return l, l.patient(o)
}

// open opens the image with an id, which must still be what was found.
func (l *librbd) open(o Options, id Identity, write bool) error {
	r := text(id.Image, func(img *C.char) C.int {
		return text(o.Snap, func(snap *C.char) C.int {
			if write {
				return C.rbd_open_by_id(l.pool, img, &l.image, snap)
			}
			return C.rbd_open_by_id_read_only(l.pool, img, &l.image, snap)
		})
	})
	if err := absent(r, fmt.Sprintf("image %s has just been removed", o.Image)); err != nil {
		return err
	}
	if now, err := l.found(o, l.image); err != nil || now != id {
		return &Error{"it is another image than a moment ago; try again", syscall.ESTALE}
	}
	return nil
}

// lock acquires the exclusive lock.
func (l *librbd) lock(o Options) (err error) {
	switch r := C.rbd_lock_acquire(l.image, C.RBD_LOCK_MODE_EXCLUSIVE); r {
	case 0:
		l.owner, err = l.holder()
		return err
	case -C.int(syscall.EROFS), -C.int(syscall.EBUSY):
		owner, err := l.holder()
		if err != nil {
			owner = "another client"
		}
		return &Error{"it is in use: its lock is held by " + owner + ", and is free when that closes the image", syscall.EBUSY}
	case -C.int(syscall.EINVAL):
		return &Error{fmt.Sprintf("it has no exclusive lock, so another client could write to it as well; enable that: rbd feature enable %s/%s exclusive-lock", o.Pool, o.Image), syscall.EINVAL}
	default:
		return failed(r, "its exclusive lock")
	}
}

// holder is the client that holds the lock, as the cluster names it.
func (l *librbd) holder() (string, error) {
	var mode C.rbd_lock_mode_t
	var owners [8]*C.char
	n := C.size_t(len(owners))
	if err := failed(C.rbd_lock_get_owners(l.image, &mode, &owners[0], &n), "the lock's holder"); err != nil {
		return "", err
	}
	defer C.rbd_lock_get_owners_cleanup(&owners[0], n)
	return C.GoString(owners[0]), nil
}

// check implements [image]. Nobody or somebody else has the lock: EROFS.
func (l *librbd) check() error {
	owner, err := l.holder()
	if n, ok := err.(*Error); err == nil && owner != l.owner || ok && n.Errno == syscall.ENOENT {
		return syscall.EROFS
	}
	return err
}

func limitsOf(size, object uint64, readOnly bool) blk.Limits {
	l := blk.DefaultLimits(size / blk.SectorSize)
	l.ReadOnly, l.NoWait = readOnly, true
	l.PhysicalBlock, l.MinIO, l.OptIO = physicalUnit, physicalUnit, uint32(object)
	l.MaxSectors = maxTransfer / blk.SectorSize
	l.MaxDiscard, l.DiscardGranularity = max(maxObjects*object, granularity)/blk.SectorSize, granularity
	l.MaxWriteZeroes = l.MaxDiscard
	return l
}

func (l *librbd) limits() blk.Limits { return l.l }

// start implements [image].
func (l *librbd) start(slot int, b *blk.Bio) int64 {
	var op C.int
	switch b.Op {
	case blk.Read:
		op = C.udm_read
	case blk.Write:
		op = C.udm_write
	case blk.Flush:
		op = C.udm_flush
	case blk.Discard:
		op = C.udm_discard
	case blk.WriteZeroes:
		if op = C.udm_zero; b.Flags&blk.NoUnmap != 0 {
			op = C.udm_zero_thick
		}
	}
	c := &l.calls[slot]
	n := 0
	if b.Op.HasData() {
		n = c.lend(b)
	}
	r := C.udm_start(l.image, op, C.uint64_t(b.Sector*blk.SectorSize), C.uint64_t(b.Bytes()), (*C.struct_iovec)(unsafe.Pointer(unsafe.SliceData(c.iov))), C.int(n), C.uintptr_t(slot))
	if r < 0 {
		c.returned()
	}
	return int64(r)
}

// lend pins the data of a bio and lists it for librbd, which keeps the list.
func (c *call) lend(b *blk.Bio) (n int) {
	if p, ok := b.Contiguous(); ok {
		c.add(0, p)
		return 1
	}
	for range b.Segments() {
		n++
	}
	if n > maxSegments {
		c.bio, c.copied = b, make([]byte, b.Bytes())
		if b.Op == blk.Write {
			b.CopyOut(c.copied)
		}
		c.add(0, c.copied)
		return 1
	}
	n = 0
	for p := range b.Segments() {
		c.add(n, p)
		n++
	}
	return n
}

// add makes p the segment n.
func (c *call) add(n int, p []byte) {
	if n >= len(c.iov) {
		room := max(4, 2*len(c.iov))
		at := C.realloc(unsafe.Pointer(unsafe.SliceData(c.iov)), C.size_t(room)*C.sizeof_struct_iovec)
		c.iov = unsafe.Slice((*segment)(at), room)
	}
	at := unsafe.SliceData(p)
	c.pin.Pin(at)
	c.iov[n] = segment{uintptr(unsafe.Pointer(at)), uintptr(len(p))}
}

// returned follows the end of a bio's I/O.
func (c *call) returned() {
	if c.bio != nil && c.bio.Op == blk.Read {
		c.bio.CopyIn(c.copied)
	}
	c.pin.Unpin()
	c.bio, c.copied = nil, nil
}

// reap implements [image].
func (l *librbd) reap(list []ended) int {
	var count [8]byte
	for !l.stopped.Load() {
		n := int(C.udm_reap(l.image, &l.done[0], batch))
		if n <= 0 {
			// librbd writes to the eventfd after it has listed an end, so none is missed.
			_, _ = l.event.Read(count[:])
			continue
		}
		for i, e := range l.done[:n] {
			list[i] = ended{int(e.slot), int64(e.result)}
			l.calls[e.slot].returned()
		}
		return n
	}
	return 0
}

// stop implements [image].
func (l *librbd) stop() {
	l.stopped.Store(true)
	_, _ = l.event.Write(binary.NativeEndian.AppendUint64(nil, 1))
}

// watch implements [image].
func (l *librbd) watch(changed func()) error {
	l.changed = changed
	l.self = cgo.NewHandle(l)
	return failed(C.udm_watch(l.image, &l.watched, C.uintptr_t(l.self)), "watching the image")
}

// rbdChanged runs on a thread of librbd, which must not be kept.
//
//export rbdChanged
func rbdChanged(handle C.uintptr_t) { cgo.Handle(handle).Value().(*librbd).changed() }

// size implements [image].
func (l *librbd) size() (uint64, error) {
	var n C.uint64_t
	err := failed(C.rbd_get_size(l.image, &n), "the image's size")
	return uint64(n) / blk.SectorSize, err
}

// extents implements [image].
func (l *librbd) extents(sector, sectors uint64) ([]blk.Extent, error) {
	sectors = min(sectors, max(maxObjects*l.object/blk.SectorSize, 1))
	a := &allocated{at: sector, end: sector + sectors}
	handle := cgo.NewHandle(a)
	defer handle.Delete()
	r := C.udm_diff(l.image, C.uint64_t(sector*blk.SectorSize), C.uint64_t(sectors*blk.SectorSize), C.uintptr_t(handle))
	if full := len(a.list) >= maxExtents; full {
		return a.finish(false), nil
	}
	return a.finish(true), failed(r, "the allocation map")
}

//export rbdAllocated
func rbdAllocated(handle C.uintptr_t, off C.uint64_t, n C.size_t) C.int {
	if !cgo.Handle(handle).Value().(*allocated).add(uint64(off), uint64(n)) {
		return -C.int(syscall.E2BIG)
	}
	return 0
}

// close implements [image]. It may close what open has not finished.
func (l *librbd) close() (err error) {
	if l.self != 0 {
		C.rbd_update_unwatch(l.image, l.watched) // waits for a callback that runs
		l.self.Delete()
	}
	if l.image != nil {
		err = failed(C.rbd_close(l.image), "closing the image") // it gives the lock back
	}
	if l.event != nil {
		l.event.Close()
	}
	l.cluster.close()
	for c := range slices.Values(l.calls[:]) {
		C.free(unsafe.Pointer(unsafe.SliceData(c.iov)))
	}
	return err
}
