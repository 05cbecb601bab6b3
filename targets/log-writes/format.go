package logwrites

import (
	"encoding/binary"

	"udm/blk"
)

// The log. All numbers are little-endian. A block is a logical block of the device whose
// writes are logged. Bytes that are not listed are zero.
//
//	block 0   the superblock
//	block 1…  the entries: each is a block with a header, followed by the data if
//	          it is a write
//
//	superblock  offset  size
//	            0       8     magic 0x6a736677736872
//	            8       8     version 1
//	            16      8     entries in the log when this was written
//	            24      4     bytes in a block
//
//	header      offset  size
//	            0       8     first block that was written or discarded
//	            8       8     number of blocks
//	            16      8     flags
//	            24      8     length of the text of a mark
//	            32            the text of a mark
const (
	magic      = 0x6a736677736872
	version    = 1
	headerSize = 32
)

const (
	flagFlush   = 1 << iota
	flagFUA     // may be set together with others
	flagDiscard // has no data in the log
	flagMark
)

// header is the header of an entry.
type header struct{ sector, blocks, flags, dataLen uint64 }

func (h *header) marshal(p []byte) {
	for i, n := range []uint64{h.sector, h.blocks, h.flags, h.dataLen} {
		binary.LittleEndian.PutUint64(p[8*i:], n)
	}
}

func superblock(entries uint64, block uint32) []byte {
	p := make([]byte, block)
	binary.LittleEndian.PutUint64(p, magic)
	binary.LittleEndian.PutUint64(p[8:], version)
	binary.LittleEndian.PutUint64(p[16:], entries)
	binary.LittleEndian.PutUint32(p[24:], block)
	return p
}

// run is the work that writes entries until none is left. If the log's device fails, the
// logging ends.
func (l *logWrites) run() {
	for {
		e, at, super := l.take()
		if e == nil {
			return
		}
		e.marshal(e.data)
		err := l.write(e.data, at)
		if err == nil && super != nil {
			err = l.write(super, 0)
		}
		if err != nil {
			l.disable()
		}
	}
}

func (l *logWrites) write(p []byte, at uint64) error {
	return blk.WriteSectors(l.target.Env(), l.logdev, p, at, 0)
}

func (l *logWrites) disable() {
	l.mu.Lock()
	l.enabled.Store(false)
	l.mu.Unlock()
}

// take takes the next entry and returns the sector that it goes to and the superblock to
// write after it, which may be nil. If the log is full or has ended, take drops all
// entries and returns nil.
func (l *logWrites) take() (e *entry, at uint64, super []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.enabled.Load() {
		if e = l.logging.Pop(); e == nil {
			return nil, 0, nil
		}
		at = l.next
		l.next += l.length(e)
		l.enabled.Store(l.next < l.logdev.Limits().Size)
	}
	if !l.enabled.Load() {
		l.logging, l.unflushed = entries{}, entries{}
		return nil, 0, nil
	}
	l.logged++
	if e.flags&(flagFUA|flagMark) != 0 {
		super = superblock(l.logged, l.block)
	}
	return e, at, super
}

// length returns how many sectors of the log e takes.
func (l *logWrites) length(e *entry) uint64 {
	if e.flags&flagDiscard != 0 {
		return l.sectors(1)
	}
	return l.sectors(1 + e.blocks)
}
