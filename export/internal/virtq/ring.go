package virtq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/cpu"
)

// MaxSize is the largest ring size of the specification. MaxChain is the longest
// chain that is accepted, including indirect descriptors.
const (
	MaxSize  = 32768
	MaxChain = 1024
)

// Features are the negotiated features of a ring.
type Features struct {
	EventIdx bool // VIRTIO_F_EVENT_IDX
	Indirect bool // VIRTIO_F_INDIRECT_DESC
	Packed   bool // VIRTIO_F_RING_PACKED
}

// EventIdx reports whether this processor supports EVENT_IDX.
func EventIdx() bool { return runtime.GOARCH != "arm64" || cpu.ARM64.HasATOMICS }

// Rings is the memory of a ring's three parts: those of a split ring, or the descriptors and
// the event areas of driver and device of a packed one. Excess length is ignored.
type Rings struct{ Desc, Avail, Used []byte }

// Lens are the lengths in bytes of the parts of a ring of n entries.
func Lens(n int, packed bool) (desc, avail, used int) {
	if packed {
		return 16 * n, eventLen, eventLen
	}
	return DescLen(n), AvailLen(n), UsedLen(n)
}

// DescLen, AvailLen and UsedLen are the lengths of the parts of a split ring.
func DescLen(n int) int  { return 16 * n }
func AvailLen(n int) int { return 6 + 2*n }
func UsedLen(n int) int  { return 6 + 8*n }

// CheckSize returns an error if no ring has n entries.
func CheckSize(n int, packed bool) error {
	switch {
	case n <= 0 || n > MaxSize:
		return fmt.Errorf("a ring of %d entries: at most %d", n, MaxSize)
	case !packed && n&(n-1) != 0:
		return fmt.Errorf("a ring of %d entries: the size is a power of two", n)
	}
	return nil
}

// Check returns an error if r cannot be a ring of size entries.
func (r Rings) Check(size int, packed bool) error {
	_, err := r.checked(size, packed)
	return err
}

// checked returns r cut to the given size, or an error.
func (r Rings) checked(size int, packed bool) (Rings, error) {
	if err := CheckSize(size, packed); err != nil {
		return r, err
	}
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return r, errors.New("rings need a little-endian processor")
	}
	desc, avail, used := Lens(size, packed)
	align := uintptr(2)
	if packed {
		align = eventLen
	}
	parts := [...]struct {
		p     *[]byte
		n     int
		align uintptr
	}{{&r.Desc, desc, 16}, {&r.Avail, avail, align}, {&r.Used, used, 4}}
	for i, a := range parts {
		if len(*a.p) < a.n || address(*a.p)%a.align != 0 {
			return r, errors.New("a part of the ring is not aligned, or not in one region of guest memory")
		}
		*a.p = (*a.p)[:a.n:a.n]
		for _, b := range parts[:i] {
			if overlap(*a.p, *b.p) {
				return r, errors.New("the parts of the ring overlap")
			}
		}
	}
	return r, nil
}

func address(p []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(p))) }

func overlap(a, b []byte) bool {
	return address(a) < address(b)+uintptr(len(b)) && address(b) < address(a)+uintptr(len(a))
}

// The flags of a descriptor, and the flag of avail and used that suppresses
// notifications.
const (
	flagNext     = 1
	flagWrite    = 2
	flagIndirect = 4
	quiet        = 1
)

// descriptor is a copy of a descriptor.
type descriptor struct {
	addr        uint64
	len         uint32
	flags, next uint16
}

// descriptorAt copies descriptor i of a table, which the driver may be changing.
func descriptorAt(table []byte, i int) descriptor {
	b := *(*[16]byte)(table[16*i:])
	return descriptor{
		addr:  binary.LittleEndian.Uint64(b[:]),
		len:   binary.LittleEndian.Uint32(b[8:]),
		flags: binary.LittleEndian.Uint16(b[12:]),
		next:  binary.LittleEndian.Uint16(b[14:]),
	}
}

func (d descriptor) put(table []byte, i int) {
	b := table[16*i : 16*i+16]
	binary.LittleEndian.PutUint64(b, d.addr)
	binary.LittleEndian.PutUint32(b[8:], d.len)
	binary.LittleEndian.PutUint16(b[12:], d.flags)
	binary.LittleEndian.PutUint16(b[14:], d.next)
}

// load16 loads the two bytes at p[off:] with the aligned word around them. The rest
// of that word may belong to anybody; it is in the same page, so it is mapped.
func load16(p []byte, off int) uint16 {
	at := unsafe.Pointer(&p[off])
	odd := uintptr(at) & 2
	return uint16(atomic.LoadUint32((*uint32)(unsafe.Add(at, -int(odd)))) >> (8 * odd))
}

// storeWord stores flags and index of a ring as one word, before any later load. It
// swaps because of the race detector: that ignores memory that is not Go's, so a
// plain store could be reordered after a later load, and both sides would sleep.
func storeWord(p []byte, flags, index uint16) {
	atomic.SwapUint32((*uint32)(unsafe.Pointer(&p[0])), uint32(index)<<16|uint32(flags))
}

// passed reports whether event is among the entries from old up to index: the other
// side requested a notification for one of them.
func passed(event, old, index uint16) bool { return index-event-1 < index-old }

// fence makes full barriers.
type fence struct{ word atomic.Uint32 }

// store16 stores v at the end of p, before any later load.
func (f *fence) store16(p []byte, v uint16) {
	*(*uint16)(unsafe.Pointer(&p[len(p)-2])) = v
	f.word.Add(1)
}
