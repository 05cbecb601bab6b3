package logwrites

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"

	"udm/blk"
	"udm/env"
)

// A log is read by the rules of replay-log of xfstests: it has as many entries as the
// superblock says. It may come from this target, from the kernel's, or from qemu's
// blklogwrites.

// maxBlock limits the size of a block as qemu does: it must be less than this, in bytes.
const maxBlock = 1 << 24

// maxPiece is the most bytes that are copied at once, unless a block is larger.
const maxPiece = 1 << 20

// Log reads a log from its beginning, one entry at a time. It is not safe for concurrent
// use.
type Log struct {
	Block   uint32 // bytes in a block: a power of two from 512 to 8 MiB
	Entries uint64 // number of entries when the superblock was last written

	r    io.ReaderAt
	read uint64 // number of entries read
	at   int64  // byte of the log where the next entry begins
	head []byte // first block of the last entry read
}

// OpenLog reads the superblock of the log in r. The Log does not close r.
func OpenLog(r io.ReaderAt) (*Log, error) {
	p := make([]byte, headerSize)
	if err := readFull(r, p, 0); err != nil {
		return nil, fmt.Errorf("superblock of the log: %w", err)
	}
	if m := binary.LittleEndian.Uint64(p); m != magic {
		return nil, fmt.Errorf("not a log: it begins with %#x, not with %#x", m, uint64(magic))
	}
	if v := binary.LittleEndian.Uint64(p[8:]); v != version {
		return nil, fmt.Errorf("the log has version %d, not %d", v, version)
	}
	l := &Log{r: r, Entries: binary.LittleEndian.Uint64(p[16:]), Block: binary.LittleEndian.Uint32(p[24:])}
	if l.Block < blk.SectorSize || l.Block >= maxBlock || l.Block&(l.Block-1) != 0 {
		return nil, fmt.Errorf("the log has blocks of %d bytes", l.Block)
	}
	l.at, l.head = int64(l.Block), make([]byte, l.Block)
	return l, nil
}

// Entry is a write, flush, discard or mark of a log.
type Entry struct {
	Index   uint64 // the first entry is 0
	Sector  uint64 // of the device; the first one that was written or discarded
	Sectors uint64 // how many were
	Flush   bool
	FUA     bool
	Discard bool
	Mark    bool
	Text    string // of a mark

	log *Log
	at  int64 // byte of the log where the data begins
}

// Next reads the next entry without its data. It returns io.EOF after the last one.
func (l *Log) Next() (*Entry, error) {
	if l.read >= l.Entries {
		return nil, io.EOF
	}
	if err := readFull(l.r, l.head, l.at); err != nil {
		return nil, fmt.Errorf("entry %d of the log: %w", l.read, err)
	}
	var h header
	h.unmarshal(l.head)
	if err := h.check(l); err != nil {
		return nil, fmt.Errorf("entry %d of the log, byte %d: %w", l.read, l.at, err)
	}
	e := &Entry{
		Index: l.read, Sector: h.sector * l.perBlock(), Sectors: h.blocks * l.perBlock(),
		Flush: h.flags&flagFlush != 0, FUA: h.flags&flagFUA != 0,
		Discard: h.flags&flagDiscard != 0, Mark: h.flags&flagMark != 0,
		log: l, at: l.at + int64(l.Block),
	}
	if e.Mark {
		e.Text = string(l.head[headerSize : headerSize+h.dataLen])
	}
	l.read++
	l.at = e.end()
	return e, nil
}

func (l *Log) perBlock() uint64 { return uint64(l.Block) / blk.SectorSize }

func (h *header) unmarshal(p []byte) {
	for i, n := range []*uint64{&h.sector, &h.blocks, &h.flags, &h.dataLen} {
		*n = binary.LittleEndian.Uint64(p[8*i:])
	}
}

// check refuses headers that no entry has: only zeroes, a text in an entry that is not a
// mark, and numbers beyond the end of any device.
func (h *header) check(l *Log) error {
	room := (math.MaxInt64 - uint64(l.at)) / uint64(l.Block)
	switch {
	case h.flags == 0 && h.blocks == 0:
		return fmt.Errorf("malformed: neither flags nor blocks")
	case h.flags&flagMark == 0 && l.head[headerSize:][0] != 0:
		return fmt.Errorf("malformed: text in what is no mark")
	case h.flags&flagMark != 0 && h.dataLen > uint64(len(l.head)-headerSize):
		return fmt.Errorf("malformed: a mark with a text of %d bytes", h.dataLen)
	case room == 0 || h.blocks > room-1 || h.sector > room-h.blocks:
		return fmt.Errorf("malformed: block %d, %d blocks", h.sector, h.blocks)
	}
	return nil
}

// end returns the first byte of the log after e.
func (e *Entry) end() int64 {
	if e.Discard {
		return e.at
	}
	return e.at + int64(e.Sectors*blk.SectorSize)
}

// Replay repeats the entry on d, without a flush. Sectors that were discarded read as
// zeroes afterwards.
func (e *Entry) Replay(en env.Env, d blk.Device) error {
	err := e.replay(en, d)
	if err != nil {
		return fmt.Errorf("entry %v: %w", e, err)
	}
	return nil
}

func (e *Entry) replay(en env.Env, d blk.Device) error {
	if size := d.Limits().Size; e.Sector+e.Sectors > size {
		return fmt.Errorf("the device ends at sector %d", size)
	}
	if e.Discard && e.Sectors > 0 {
		return blk.ZeroSectors(en, d, e.Sector, e.Sectors)
	}
	size := uint64(e.end() - e.at)
	buf := make([]byte, min(size, max(maxPiece, uint64(e.log.Block))))
	for done := uint64(0); done < size; {
		p := buf[:min(size-done, uint64(len(buf)))]
		if err := readFull(e.log.r, p, e.at+int64(done)); err != nil {
			return fmt.Errorf("data in the log: %w", err)
		}
		if err := blk.WriteSectors(en, d, p, e.Sector+done/blk.SectorSize, 0); err != nil {
			return err
		}
		done += uint64(len(p))
	}
	return nil
}

// Kind returns the names of the entry's flags, joined by commas, or "write".
func (e *Entry) Kind() string {
	kind := ""
	for _, f := range []struct {
		set  bool
		name string
	}{{e.Flush, "flush"}, {e.FUA, "fua"}, {e.Discard, "discard"}, {e.Mark, "mark"}} {
		if f.set {
			kind += "," + f.name
		}
	}
	if kind == "" {
		return "write"
	}
	return kind[1:]
}

func (e *Entry) String() string {
	switch {
	case e.Mark:
		return fmt.Sprintf("%d %s %q", e.Index, e.Kind(), e.Text)
	case e.Sectors == 0:
		return fmt.Sprintf("%d %s", e.Index, e.Kind())
	}
	return fmt.Sprintf("%d %s %d+%d", e.Index, e.Kind(), e.Sector, e.Sectors)
}

// readFull reads all of p or returns an error.
func readFull(r io.ReaderAt, p []byte, at int64) error {
	n, err := r.ReadAt(p, at)
	switch {
	case n == len(p):
		return nil
	case err == io.EOF || err == nil:
		return io.ErrUnexpectedEOF
	}
	return err
}
