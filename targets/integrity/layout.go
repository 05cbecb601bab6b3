package integrity

import (
	"errors"
	"math"
	"math/bits"

	"udm/blk"
)

const (
	entrySectors   = 8   // sectors at the start of a section that hold its entries
	sectorSpace    = 504 // bytes of entries in each of them
	commitIDOffset = 504
	minInterleave  = 3 // log2 of sectors
	maxInterleave  = 31
	padding        = 8 // sectors that must remain after the journal
)

// layout computes the positions of the parts of a disk: superblock, journal, and then areas,
// each a run of tags followed by a run of data. On a meta device all tags follow the
// journal. Positions are relative to the superblock, in sectors unless stated otherwise.
type layout struct {
	tagSize      int    // bytes
	logBlock     uint   // log2 of blockSectors
	blockSectors uint64 // sectors in a block
	meta         bool   // superblock, journal and tags are on a meta device

	entrySize       int // bytes of a journal entry
	entriesInSector int
	sectionEntries  uint64
	sectionSectors  uint64
	sections        uint64
	initial         uint64 // sectors of superblock and journal

	logInterleave uint   // log2 of the sectors of data in an area
	run           uint64 // sectors of tags in an area
	provided      uint64 // sectors of data
	logBuffer     uint   // log2 of the sectors in the unit of I/O for tags
}

// newLayout returns a layout without provided, which provide computes.
func newLayout(s *Superblock, meta bool, logBuffer uint) *layout {
	l := &layout{tagSize: int(s.TagSize), logBlock: uint(s.LogBlock), blockSectors: 1 << s.LogBlock, meta: meta, logInterleave: uint(s.LogInterleave), logBuffer: logBuffer}
	l.entrySize = (8 + 8<<l.logBlock + l.tagSize + 7) / 8 * 8
	space := sectorSpace
	if s.Flags&flagJournalMAC != 0 {
		space -= macPart
	}
	l.entriesInSector = space / l.entrySize
	l.sectionEntries = uint64(l.entriesInSector) * entrySectors
	l.sectionSectors = l.sectionEntries<<l.logBlock + entrySectors
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

// fits reports whether the layout fits on a device of size sectors whose superblock is at
// sector start.
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

// provide sets provided to the largest number of sectors of data that fits, or with a meta
// device to dataSize, rounded down to a block.
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

// shrinkJournal sets the largest number of sections, at most most, that fits on a meta device
// together with the tags, or 0.
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

// data returns the position of a sector of data.
func (l *layout) data(sector uint64) uint64 {
	if l.meta {
		return sector
	}
	area := sector >> l.logInterleave
	return l.initial + sector + (area+1)*l.run
}

// tag returns the position of the tag of a block, given the block's first sector, in bytes
// from the end of the journal.
func (l *layout) tag(sector uint64) uint64 {
	if l.meta {
		return sector >> l.logBlock * uint64(l.tagSize)
	}
	area, offset := sector>>l.logInterleave, sector&(1<<l.logInterleave-1)
	return (area<<l.logInterleave+area*l.run)*blk.SectorSize + offset>>l.logBlock*uint64(l.tagSize)
}

// section returns the position of sector n of section i.
func (l *layout) section(i, n uint64) uint64 { return sbSectors + i*l.sectionSectors + n }

// areaEnd returns the end of the area with a sector of data. With a meta device, which has
// no areas, it returns the end of a fixed-size part of the data.
func (l *layout) areaEnd(sector uint64) uint64 {
	const part = 15
	log := uint64(part)
	if !l.meta {
		log = uint64(l.logInterleave)
	}
	return (sector>>log + 1) << log
}
