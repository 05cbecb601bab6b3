package integrity

import (
	"math"
	"math/bits"
	"time"

	"udm/blk"
)

// bitmap is what mode B has instead of a journal: one bit for each region of the data. On
// disk, the bit of a region is set before its first block is written, and cleared some time
// after everything was flushed. After a power cut, only the tags of regions with a bit are
// computed again.
//
// Only mark, whose callers own a span, and flush, which owns all sectors, change disk and
// mayWrite. A region in recalc has its bit on disk.
type bitmap struct {
	*integrity
	logBit uint // log2 of the sectors of a region

	disk     regions // bits on disk, or about to be; written by one goroutine at a time
	mayWrite regions // guarded by mu; bits that are durable
	recalc   regions // guarded by mu; regions whose tags are not all computed
	writing  bool    // guarded by mu; a caller of mark writes disk
	armed    bool    // guarded by mu; a flush is scheduled
}

const (
	bitmapBlock   = 4096 // bytes; the unit in which the bitmap is written
	anyBitmapBit  = math.MaxUint8
	bitmapSectors = bitmapBlock / blk.SectorSize
)

// regions is a set of regions, with bit n%8 of byte n/8 for region n. Its length is a multiple
// of bitmapBlock.
type regions []byte

func (r regions) has(n uint64) bool { return r[n/8]&(1<<(n%8)) != 0 }

// set adds or removes the regions from first to end, exclusive.
func (r regions) set(first, end uint64, on bool) {
	for n := first; n < end; n++ {
		switch {
		case n%8 == 0 && end-n >= 8 && on:
			r[n/8] = 0xff
			n += 7
		case n%8 == 0 && end-n >= 8:
			r[n/8] = 0
			n += 7
		case on:
			r[n/8] |= 1 << (n % 8)
		default:
			r[n/8] &^= 1 << (n % 8)
		}
	}
}

// next returns the first region from n on, before end, for which has is want, or end.
func (r regions) next(n, end uint64, want bool) uint64 {
	skip := byte(0)
	if !want {
		skip = 0xff
	}
	for n < end && r.has(n) != want {
		if n++; n%8 == 0 {
			for n < end && r[n/8] == skip {
				n += 8
			}
		}
	}
	return min(n, end)
}

func newBitmap(g *integrity) *bitmap {
	b := &bitmap{integrity: g, logBit: uint(g.layout.bitmapBit(g.line.SectorsPerBit)) + g.layout.logBlock}
	size := (b.end()/8 + bitmapBlock) / bitmapBlock * bitmapBlock
	b.disk, b.mayWrite, b.recalc = make(regions, size), make(regions, size), make(regions, size)
	return b
}

// end returns the number of regions.
func (b *bitmap) end() uint64 { return (b.layout.provided + 1<<b.logBit - 1) >> b.logBit }

// of returns the regions of a span, from first to end, exclusive.
func (b *bitmap) of(s span) (first, end uint64) {
	return s.sector >> b.logBit, (s.end() + 1<<b.logBit - 1) >> b.logBit
}

// missing reports whether a block of a span may have no tag yet. Called with mu held.
func (b *bitmap) missing(s span) bool {
	first, end := b.of(s)
	return b.recalc.next(first, end, true) < end
}

// mark makes the bits of a span durable before the span is written. The caller owns the span.
func (b *bitmap) mark(s span) error {
	first, end := b.of(s)
	if !b.startMarking(first, end) {
		return nil
	}
	err := b.write(first/(bitmapBlock*8), (end-1)/(bitmapBlock*8))
	b.mu.Lock()
	b.writing = false
	if err == nil {
		b.mayWrite.set(first, end, true)
	}
	b.arm()
	b.mu.Unlock()
	b.wait.Wake()
	return err
}

// startMarking waits until nobody else writes the bitmap. It then returns true if bits of the
// regions are not durable: the caller must write them.
func (b *bitmap) startMarking(first, end uint64) (needed bool) {
	b.wait.Until(func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		needed = b.mayWrite.next(first, end, false) < end
		if needed && b.writing {
			return false
		}
		if needed {
			b.writing = true
			b.disk.set(first, end, true)
		}
		return true
	})
	return needed
}

// write makes blocks of the bitmap durable.
func (b *bitmap) write(first, last uint64) error {
	return blk.WriteSectors(b.env, b.meta, b.disk[first*bitmapBlock:(last+1)*bitmapBlock], b.start+sbSectors+first*bitmapSectors, blk.FUA)
}

func (b *bitmap) writeAll() error { return b.write(0, uint64(len(b.disk))/bitmapBlock-1) }

// arm schedules a flush, if none is scheduled. Called with mu held.
func (b *bitmap) arm() {
	if !b.armed {
		b.armed = true
		b.committer.QueueAfter(&b.bitmapWork, time.Duration(b.line.BitmapFlushInterval)*time.Millisecond)
	}
}

// flush makes everything durable, and then clears the bits of regions whose tags are computed.
// It flushes twice, so that clients wait only for what they wrote during the first time. It
// runs on the queue committer.
func (b *bitmap) flush() {
	b.mu.Lock()
	b.armed = false
	b.mu.Unlock()
	err := b.flushDevices()
	b.acquireAll()
	if err == nil {
		err = b.flushDevices()
	}
	if err == nil {
		b.clear()
		err = b.writeAll()
	}
	b.releaseAll()
	if err != nil {
		b.target.Log().Error("integrity: cannot clear the bitmap", "error", err)
		b.mu.Lock()
		b.arm()
		b.mu.Unlock()
	}
}

// clear clears the bits of all regions up to where recalculation is. The caller owns all
// sectors.
func (b *bitmap) clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	end := b.end()
	if at := b.unverifiedFrom(); at < b.layout.provided {
		end = at >> b.logBit
	}
	b.disk.set(0, end, false)
	b.mayWrite.set(0, end, false)
}

// read reads the bitmap of a disk that was not closed in order, and reports whether the tags of
// some regions must be computed again. If it has another size of region, all of them must.
func (b *bitmap) read() (dirty bool, err error) {
	err = blk.ReadSectors(b.env, b.meta, b.disk, b.start+sbSectors)
	if b.sb.LogBitmapBit != b.bit() {
		b.disk.set(0, b.end(), true)
	}
	return b.disk.next(0, b.end(), true) < b.end(), err
}

// bit returns the log2 of the blocks for each bit.
func (b *bitmap) bit() uint8 { return uint8(b.logBit - b.layout.logBlock) }

// begin writes the bitmap and then the superblock, before the first I/O.
func (b *bitmap) begin() error {
	if err := b.writeAll(); err != nil {
		return err
	}
	b.mu.Lock()
	copy(b.mayWrite, b.disk)
	copy(b.recalc, b.disk)
	b.sb.LogBitmapBit = b.bit()
	b.mu.Unlock()
	return b.writeSuperblock()
}

// enter replaces the empty journal of a disk that was closed in order by a bitmap, which has the
// bits of regions that are not recalculated yet. It flushes first: that the journal is empty may
// have been written by a process that was killed, and not be durable.
func (b *bitmap) enter() error {
	err := blk.FlushDevice(b.env, b.meta)
	if err == nil {
		err = b.markDirty()
	}
	if err != nil {
		return err
	}
	b.disk.set(0, b.end(), false)
	if at := b.sb.RecalcSector; b.sb.Flags&flagRecalculating != 0 && at < b.layout.provided {
		b.disk.set(at>>b.logBit, b.end(), true)
	}
	return b.begin()
}

// reopen continues with the bitmap of a disk that was not closed in order.
func (b *bitmap) reopen() error {
	dirty, err := b.read()
	if err != nil {
		return err
	}
	if old := b.sb.Provided; old < b.layout.provided {
		b.disk.set(old>>b.logBit, b.end(), true)
		dirty = true
	}
	if b.line.ResetRecalculate || b.line.Recalculate && b.sb.Flags&flagRecalculating == 0 {
		b.disk.set(0, b.end(), true)
		dirty = true
	}
	b.updateFields(dirty)
	return b.begin()
}

// markDirty writes a superblock that says that there is a bitmap, and while tags are missing, that
// nothing is known about the size of its regions: after a power cut that leaves something else
// in its place, all tags are then recalculated.
func (b *bitmap) markDirty() error {
	b.mu.Lock()
	b.sb.Flags |= flagBitmap
	b.sb.LogBitmapBit = b.bit()
	if b.unverifiedFrom() < b.layout.provided {
		b.sb.LogBitmapBit = anyBitmapBit
	}
	b.mu.Unlock()
	return b.writeSuperblock()
}

// leave replaces the bitmap by an empty journal after everything was written and flushed.
func (b *bitmap) leave() error {
	if err := b.markDirty(); err != nil {
		return err
	}
	if err := newJournal(b.integrity).format(); err != nil {
		return err
	}
	b.mu.Lock()
	b.sb.Flags &^= flagBitmap
	b.sb.LogBitmapBit = b.bit()
	b.mu.Unlock()
	return b.writeSuperblock()
}

// doubt makes the tags of a span be recalculated, because a write to it failed and may have left
// data that do not match. The caller owns the span.
func (b *bitmap) doubt(s span) {
	b.mu.Lock()
	defer b.mu.Unlock()
	first, end := b.of(s)
	b.sb.RecalcSector = min(b.unverifiedFrom(), first<<b.logBit)
	b.sb.Flags |= flagRecalculating
	b.recalc.set(first, end, true)
	if !b.stopped {
		b.writer.Queue(&b.recalcWork)
	}
}

// nextMissing returns the first span from at on, in one piece, that has regions without tags.
// Called with mu held.
func (b *bitmap) nextMissing(at uint64) span {
	first := b.recalc.next(at>>b.logBit, b.end(), true)
	at = min(max(at, first<<b.logBit), b.layout.provided)
	end := b.recalc.next(first, min(b.end(), first+recalcSectors>>b.logBit+1), false)
	return span{at, min(end<<b.logBit, b.layout.provided) - at}
}

// computed records that the tags of a span were computed. Called with mu held.
func (b *bitmap) computed(s span) {
	end := s.end() >> b.logBit
	if s.end() == b.layout.provided {
		end = b.end()
	}
	b.recalc.set(s.sector>>b.logBit, end, false)
}

// bitmapBit returns the log2 of the blocks for each bit, given the sectors that a table has for
// it: more if the area of the journal is too small for that.
func (l *layout) bitmapBit(sectors uint64) uint8 {
	log := max(uint(bits.Len64(sectors))-1, l.logBlock)
	room := min(l.sectionSectors*l.sections*blk.SectorSize*8, math.MaxUint32)
	for room < (l.provided+1<<log-1)>>log {
		log++
	}
	return uint8(log - l.logBlock)
}
