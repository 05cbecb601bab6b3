package snapshot

import (
	"encoding/binary"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// The persistent store on disk (drivers/md/dm-snap-persistent.c). Numbers are
// little-endian; the unit is the chunk, of chunk-size sectors.
//
//	chunk 0                header
//	chunk 1                area 0: E entries, E = bytes in a chunk / 16
//	chunks 2 … E+1         data of these entries
//	chunk E+2              area 1
//	…                      area a is chunk 1 + a·(E+1)
//
//	header  0  u32  magic 0x70416e53, "SnAp"
//	        4  u32  valid: 1, or 0 once the snapshot was dropped
//	        8  u32  version 1
//	       12  u32  chunk size in sectors
//	       16       zeroes to the end of the chunk
//
//	entry   0  u64  chunk of the origin
//	        8  u64  chunk of the COW device; 0 ends the list
//
// Before an area is full the next one is zeroed, so that the list always has an end.
const (
	magic       = 0x70416e53
	diskVersion = 1
	headerSize  = 16
	entrySize   = 16
)

type header struct {
	valid            bool
	version, sectors uint32
}

// EmptyStore is the beginning of a file that is a store without exceptions and, but for
// this, of zeroes: whoever makes it so and flushes it saves the target two flushes of its
// own. chunk is in sectors.
func EmptyStore(chunk uint32) []byte {
	p := make([]byte, headerSize)
	header{true, diskVersion, chunk}.marshal(p)
	return p
}

func (h header) marshal(p []byte) {
	clear(p)
	le := binary.LittleEndian
	le.PutUint32(p[0:], magic)
	if h.valid {
		le.PutUint32(p[4:], 1)
	}
	le.PutUint32(p[8:], h.version)
	le.PutUint32(p[12:], h.sectors)
}

// parseHeader parses a header. fresh means that there is none and a new store is to
// be created.
func parseHeader(p []byte) (h header, fresh bool, err error) {
	le := binary.LittleEndian
	switch le.Uint32(p) {
	case 0:
		return h, true, nil
	case magic:
		return header{le.Uint32(p[4:]) != 0, le.Uint32(p[8:]), le.Uint32(p[12:])}, false, nil
	}
	return h, false, dm.Errorf(syscall.ENXIO, "Invalid or corrupt snapshot")
}

func getEntry(area []byte, i uint64) (old, new uint64) {
	p := area[i*entrySize:]
	return binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:])
}

func putEntry(area []byte, i, old, new uint64) {
	p := area[i*entrySize:]
	binary.LittleEndian.PutUint64(p, old)
	binary.LittleEndian.PutUint64(p[8:], new)
}

// geometry is the layout of a store with a given chunk size.
type geometry struct {
	chunk   uint64 // sectors
	perArea uint64 // entries in an area
}

func newGeometry(chunk uint64) geometry { return geometry{chunk, chunk * blk.SectorSize / entrySize} }

// areaChunk is the chunk of area a.
func (g geometry) areaChunk(a uint64) uint64 { return 1 + a*(g.perArea+1) }

// isArea reports whether chunk holds an area and no data.
func (g geometry) isArea(chunk uint64) bool { return chunk%(g.perArea+1) == 1 }

// dataChunk is the n-th chunk that may hold data.
func (g geometry) dataChunk(n uint64) uint64 { return g.areaChunk(n/g.perArea) + 1 + n%g.perArea }

// dataNumber returns the number of the first chunk from c on that may hold data.
func (g geometry) dataNumber(c uint64) uint64 {
	if g.isArea(c) {
		c++
	}
	return (c-1)/(g.perArea+1)*g.perArea + (c-1)%(g.perArea+1) - 1
}

// parseArea passes each entry of an area to add and returns their number. A chunk
// that cannot hold data, or is not below chunks, is damage.
func (g geometry) parseArea(area []byte, chunks uint64, add func(old, new uint64) error) (n uint64, err error) {
	for n < g.perArea {
		old, new := getEntry(area, n)
		if new == 0 {
			return n, nil
		}
		if new >= chunks || g.isArea(new) || old >= maxChunk {
			return n, dm.Errorf(syscall.EINVAL, "exception %d of an area maps chunk %d to %d, which holds no data", n, old, new)
		}
		if err := add(old, new); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
