package integrity

import (
	"errors"
	"math"
	"math/bits"

	"udm/blk"
)

const (
	journalBlock   = 8   // sectors at a section's begin that hold its entries
	sectorSpace    = 504 // bytes of entries in one of them
	commitIDOffset = 504
	minInterleave  = 3 // log2 sectors
	maxInterleave  = 31
	padding        = 8 // sectors that have to be left
)

// layout says where the parts of a disk lie: superblock, journal, then runs of tags and
// of data in turn, or with a device of their own the tags behind the journal. Positions
// count from the superblock, in sectors unless they are said to be bytes.
type layout struct {
	tagSize      int    // bytes
	logBlock     uint   // log2 sectors of a block
	blockSectors uint64 // of a block
	meta         bool   // tags are on a device of their own

	entrySize       int // bytes of a journal entry
	entriesInSector int
	sectionEntries  uint64
	sectionSectors  uint64
	sections        uint64
	initial         uint64 // superblock and journal

	logInterleave uint
	run           uint64 // of tags of an area
	provided      uint64 // of data
	logBuffer     uint   // log2 sectors of the unit in which tags are read and written
}

// start sizes the journal's parts.
func newLayout(s *Superblock, meta bool, logBuffer uint) *layout {
	l := &layout{tagSize: int(s.TagSize), logBlock: uint(s.LogBlock), blockSectors: 1 << s.LogBlock, meta: meta, logInterleave: uint(s.LogInterleave), logBuffer: logBuffer}
	l.entrySize = (8 + 8<<l.logBlock + l.tagSize + 7) / 8 * 8
	space := sectorSpace
	if s.Flags&flagJournalMAC != 0 {
		space -= 8
	}
	l.entriesInSector = space / l.entrySize
	l.sectionEntries = uint64(l.entriesInSector) * journalBlock
	l.sectionSectors = l.sectionEntries<<l.logBlock + journalBlock
	pad := uint64(128 << 10)
	if s.Flags&flagPadding != 0 {
		pad = 4096
	}
	if !meta {
		l.run = (uint64(l.tagSize)<<(l.logInterleave-l.logBlock) + pad - 1) / pad * pad / blk.SectorSize
	}
	l.setSections(uint64(s.JournalSections))
	return l
}

func (l *layout) setSections(n uint64) {
	l.sections = n
	l.initial = sbSectors + l.sectionSectors*n
}

func (l *layout) entries() uint64 { return l.sections * l.sectionEntries }

var errTooSmall = errors.New("the device is too small")

// fits reports whether all lies on a device of size sectors, on which the superblock is
// at sector start.
func (l *layout) fits(start, size uint64) bool {
	if l.initial+padding >= size || l.initial > math.MaxUint32 {
		return false
	}
	if l.meta {
		unit := uint64(1) << l.logBuffer
		tags := (l.provided>>l.logBlock*uint64(l.tagSize) + unit*blk.SectorSize - 1) / (unit * blk.SectorSize) * unit
		return l.initial+tags <= size
	}
	last := start + l.data(l.provided-1)
	return last >= start && last < size
}

// provide finds how many sectors of data there are: the most that fit, or all of the
// data's own device.
func (l *layout) provide(start, size, dataSize uint64) {
	if l.meta {
		l.provided = dataSize &^ (l.blockSectors - 1)
		return
	}
	l.provided = 0
	for bit := bits.Len64(size) - 1; bit >= 3; bit-- {
		l.provided |= 1 << bit
		if !l.fits(start, size) {
			l.provided &^= 1 << bit
		}
	}
}

// shrinkJournal finds the most sections, most at most, for which there is room beside
// the tags, on a device of their own.
func (l *layout) shrinkJournal(start, size, most uint64) {
	n := uint64(0)
	for bit := bits.Len64(most) - 1; bit >= 0; bit-- {
		if test := n | 1<<bit; test <= most {
			if l.setSections(test); l.fits(start, size) {
				n = test
			}
		}
	}
	l.setSections(n)
}

// data is where a sector of data lies.
func (l *layout) data(sector uint64) uint64 {
	if l.meta {
		return sector
	}
	area := sector >> l.logInterleave
	return l.initial + sector + (area+1)*l.run
}

// tag is the byte behind the journal where the tag of a block lies, given by its first
// sector.
func (l *layout) tag(sector uint64) uint64 {
	if l.meta {
		return sector >> l.logBlock * uint64(l.tagSize)
	}
	area, offset := sector>>l.logInterleave, sector&(1<<l.logInterleave-1)
	return (area<<l.logInterleave+area*l.run)*blk.SectorSize + offset>>l.logBlock*uint64(l.tagSize)
}

// section is where sector n of a section lies.
func (l *layout) section(i, n uint64) uint64 { return sbSectors + i*l.sectionSectors + n }

// areaEnd is where the area of a sector of data ends, or for data with a device of its
// own a part of it.
func (l *layout) areaEnd(sector uint64) uint64 {
	const part = 15
	log := uint64(part)
	if !l.meta {
		log = uint64(l.logInterleave)
	}
	return (sector>>log + 1) << log
}

// bitmapBit is log2 of the blocks that a bit of the journal would stand for if it held a
// bitmap: 32768 sectors, or more if the journal is too small for that.
func (l *layout) bitmapBit() uint8 {
	log := max(15, l.logBlock)
	room := min(l.sectionSectors*l.sections*blk.SectorSize*8, math.MaxUint32)
	for room < (l.provided+1<<log-1)>>log {
		log++
	}
	return uint8(log - l.logBlock)
}
