package writecache

import (
	"encoding/binary"
	"syscall"

	"udm/blk"
	"udm/dm"
)

const (
	magic      = 0x23489321
	version    = 1
	headerSize = 64 // of the superblock
	entrySize  = 16
	freeSeq    = ^uint64(0) // the sequence count of a free entry
	maxBlocks  = 1 << 28
	granule    = 4096 // bytes; changed metadata is written in units of it
)

// Superblock is the head of the cache device: see the package comment for the offsets.
type Superblock struct {
	BlockSize uint32 // bytes
	Blocks    uint64
	Seq       uint64
}

func (s *Superblock) encode(p []byte) {
	clear(p[:headerSize])
	binary.LittleEndian.PutUint32(p, magic)
	binary.LittleEndian.PutUint32(p[4:], version)
	binary.LittleEndian.PutUint32(p[8:], s.BlockSize)
	binary.LittleEndian.PutUint64(p[16:], s.Blocks)
	binary.LittleEndian.PutUint64(p[24:], s.Seq)
}

// decodeSuperblock decodes a superblock. fresh: it has never been written.
func decodeSuperblock(p []byte) (s *Superblock, fresh bool, err error) {
	m, v := binary.LittleEndian.Uint32(p), binary.LittleEndian.Uint32(p[4:])
	switch {
	case m == 0 && v == 0:
		return nil, true, nil
	case m != magic:
		return nil, false, invalid("Invalid magic in the superblock")
	case v != version:
		return nil, false, invalid("Invalid version in the superblock")
	}
	return &Superblock{binary.LittleEndian.Uint32(p[8:]), binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[24:])}, false, nil
}

// metadataSize is the number of bytes of the superblock and of n entries, in whole blocks.
func metadataSize(n uint64, blockSize uint32) uint64 {
	bs := uint64(blockSize)
	return (headerSize + n*entrySize + bs - 1) &^ (bs - 1)
}

// blocksFor is the number of blocks that fit on a device of size bytes.
func blocksFor(size uint64, blockSize uint32) (uint64, error) {
	n := size / (uint64(blockSize) + entrySize)
	for n > 0 && metadataSize(n, blockSize)+n*uint64(blockSize) > size {
		n--
	}
	if n == 0 {
		return 0, dm.Errorf(syscall.ENOSPC, "Invalid device size")
	}
	return n, tooMany(n)
}

func tooMany(n uint64) error {
	if n < maxBlocks {
		return nil
	}
	return dm.Because(dm.Errorf(syscall.EFBIG, "%d blocks are too many; use larger blocks or a part of the device", n), "Invalid device size")
}

// fits checks a superblock against a table line and the size of the device in bytes.
func (s *Superblock) fits(blockSize uint32, size uint64) error {
	bs := uint64(blockSize)
	switch {
	case s.BlockSize != blockSize:
		return invalid("Block size does not match superblock")
	case s.Blocks > 1<<60/entrySize || s.Blocks > 1<<63/bs:
		return invalid("Overflow in size calculation")
	case metadataSize(s.Blocks, blockSize)+s.Blocks*bs > size:
		return invalid("Memory area is too small")
	}
	return tooMany(s.Blocks)
}

// image is the metadata as on the cache device, and which granules of it have changed
// since they were written. It belongs to the owner.
type image struct {
	p     []byte
	dirty []bool // by granule
}

func newImage(s *Superblock) *image {
	size := metadataSize(s.Blocks, s.BlockSize)
	return &image{p: make([]byte, size), dirty: make([]bool, (size+granule-1)/granule)}
}

// put changes an entry.
func (m *image) put(i int32, sector, seq uint64) {
	at := headerSize + int(i)*entrySize
	binary.LittleEndian.PutUint64(m.p[at:], sector)
	m.putSeq(i, seq)
}

func (m *image) putSeq(i int32, seq uint64) {
	at := headerSize + int(i)*entrySize
	binary.LittleEndian.PutUint64(m.p[at+8:], seq)
	m.dirty[at/granule] = true
}

func (m *image) get(i int32) (sector, seq uint64) {
	at := headerSize + int(i)*entrySize
	return binary.LittleEndian.Uint64(m.p[at:]), binary.LittleEndian.Uint64(m.p[at+8:])
}

// writeChanges writes the granules that have changed and flushes the device, without the
// superblock's new sequence count.
func (w *writecache) writeChanges() error {
	m := w.image
	for i := 0; i < len(m.dirty); {
		if !m.dirty[i] {
			i++
			continue
		}
		end := i
		for end < len(m.dirty) && m.dirty[end] {
			end++
		}
		p := m.p[i*granule : min(end*granule, len(m.p))]
		if err := blk.WriteSectors(w.env, w.fast, p, w.start+uint64(i)*granule/blk.SectorSize, 0); err != nil {
			return err
		}
		i = end
	}
	if err := blk.FlushDevice(w.env, w.fast); err != nil {
		return err
	}
	clear(m.dirty)
	return nil
}

// writeSuperblock makes a sequence count durable. Until that is done the image keeps the
// old one, so that it cannot be written too early by another attempt.
func (w *writecache) writeSuperblock(seq uint64) error {
	p := append([]byte(nil), w.image.p[:min(granule, len(w.image.p))]...)
	binary.LittleEndian.PutUint64(p[24:], seq)
	if err := blk.WriteSectors(w.env, w.fast, p, w.start, blk.FUA); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(w.image.p[24:], seq)
	return nil
}
