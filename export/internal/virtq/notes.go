package virtq

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"
)

// InflightLen is the length in bytes of the record of what is in flight in a ring of n
// entries, of either kind: see splitNotes and packedNotes. Each begins at a multiple of 8.
func InflightLen(n int) int { return (16 + 16*n + 16*n + 63) &^ 63 }

// entry is the record of a head: a word of which bit 0 says that it is in flight, and a
// counter.
type entry struct{ state, counter uint64 }

const marked = 1

// The versions of a record, in the low 16 bits of its header.
const (
	splitVersion  = 1
	packedVersion = 2
)

func checkVersion(v uint16) error {
	if v > packedVersion {
		return fmt.Errorf("requests in flight are noted in version %d", v)
	}
	return nil
}

// notesOf cuts the record of a ring of n entries into its header, the entries of heads, and
// the rest, 16 bytes for each entry.
func notesOf(mem []byte, n int) (header *uint64, entries []entry, rest []byte, err error) {
	if n <= 0 || n > MaxSize || len(mem) < 16+32*n || address(mem)%8 != 0 {
		return nil, nil, nil, fmt.Errorf("%d bytes to note %d requests in flight: too short, or not aligned", len(mem), n)
	}
	p := unsafe.Pointer(&mem[0])
	return (*uint64)(unsafe.Add(p, 8)), unsafe.Slice((*entry)(unsafe.Add(p, 16)), n), mem[16+16*n:][:16*n], nil
}

// inOrder returns the heads in flight in the order of their counters.
func inOrder(entries []entry) (heads []uint16) {
	for i := range entries {
		if atomic.LoadUint64(&entries[i].state)&marked != 0 {
			heads = append(heads, uint16(i))
		}
	}
	counter := make(map[uint16]uint64)
	for _, h := range heads {
		counter[h] = atomic.LoadUint64(&entries[h].counter)
	}
	slices.SortStableFunc(heads, func(a, b uint16) int { return cmp.Compare(counter[a], counter[b]) })
	return heads
}

// lastCounter is the highest counter of heads, which are in order.
func lastCounter(entries []entry, heads []uint16) uint64 {
	if len(heads) == 0 {
		return 0
	}
	return atomic.LoadUint64(&entries[heads[len(heads)-1]].counter)
}
