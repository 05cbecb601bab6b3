package integrity

import (
	"encoding/binary"

	"udm/blk"
)

// journal collects writes in sections, which are committed to disk and then written back to
// their final locations. The sections form a ring:
//
//	│ free │ committed … │ uncommitted … │ filling │ free …
//	        done          commit          fill
//
// All fields below are guarded by integrity.mu.
type journal struct {
	*integrity
	ids [commitSeqs]uint64 // bases of the commit ids, by sequence number

	sections []section
	where    map[uint64]slot // newest entry of each block that is not written back, by its first sector

	fill, fillEntry uint64 // the next entry to use
	fillSeq         int    // sequence number of section fill
	commit          uint64 // the first uncommitted section
	uncommitted     uint64 // number of full sections that are not committed
	done            uint64 // the first committed section
	committed       uint64 // number of committed sections that are not written back
	free            uint64 // number of free entries

	wrote    bool   // the journal on disk may have entries
	needRoom bool   // write back as soon as possible, because a clone waits
	failures uint64 // failed commits and write-backs, so that waiting clones can fail
	failure  error  // the last of them
}

// slot identifies an entry of a section.
type slot struct{ section, entry uint64 }

// section is a section of the journal in memory. A filled entry does not change until the
// section is written back and its memory is dropped, so it can be read without a lock.
type section struct {
	image   []byte // as on disk, with commit ids; nil if the section is free
	copying int    // number of entries reserved but not filled yet
}

// image is the entry and the data of a block in a section.
type image struct{ entry, data []byte }

const (
	unusedEntry   = 0xffffffff // high half of an unused entry's sector
	commitSeqs    = 4          // sequence numbers
	firstCommitID = 0x1111111111111111
	entryHeader   = 8 // bytes of an entry before the last bytes of the sectors
	commitIDSize  = 8
)

func newJournal(g *integrity) *journal {
	j := &journal{integrity: g, sections: make([]section, g.layout.sections)}
	j.ids = g.seal.commitIDs(g.layout)
	j.reset(0, 0)
	return j
}

// reset empties the journal in memory. Filling continues with section at and sequence
// number seq.
func (j *journal) reset(at uint64, seq int) {
	clear(j.sections)
	j.where = make(map[uint64]slot)
	j.fill, j.fillEntry, j.fillSeq = at, 0, seq
	j.commit, j.uncommitted, j.done, j.committed = at, 0, at, 0
	j.free = j.layout.entries()
}

func nextSeq(seq int) int { return (seq + 1) % commitSeqs }
func prevSeq(seq int) int { return (seq + commitSeqs - 1) % commitSeqs }

// id returns the commit id of sector n of a section.
func (j *journal) id(section, n uint64, seq int) uint64 { return j.ids[seq] ^ (section<<32 ^ n) }

// next returns the section that follows another in the ring.
func (j *journal) next(section uint64) uint64 {
	if section++; section == j.layout.sections {
		return 0
	}
	return section
}

// empty returns the image of a section without entries.
func (j *journal) empty(at uint64, seq int) []byte {
	p := make([]byte, j.layout.sectionSectors*blk.SectorSize)
	for n := range j.layout.sectionSectors {
		binary.LittleEndian.PutUint64(p[n*blk.SectorSize+commitIDOffset:], j.id(at, n, seq))
	}
	for e := range j.layout.sectionEntries {
		binary.LittleEndian.PutUint32(j.layout.image(p, e).entry[4:], unusedEntry)
	}
	return p
}

// format makes an empty journal durable.
func (j *journal) format() error {
	for at := range j.layout.sections {
		if err := j.store(at, j.empty(at, 0)); err != nil {
			return err
		}
	}
	return blk.FlushDevice(j.env, j.meta)
}

// image returns entry e of a section. The result aliases section.
func (l *layout) image(section []byte, e uint64) image {
	at := e%entrySectors*blk.SectorSize + e/entrySectors*uint64(l.entrySize)
	data := (entrySectors + e<<l.logBlock) * blk.SectorSize
	return image{section[at:][:l.entrySize], section[data:][:l.blockSectors*blk.SectorSize]}
}

// pack stores a block and its tag. The last bytes of each sector are stored in the entry,
// because the commit id takes their place.
func (im image) pack(sector uint64, data, tag []byte) {
	binary.LittleEndian.PutUint64(im.entry, sector)
	at := entryHeader
	for n := 0; n < len(data); n += blk.SectorSize {
		copy(im.data[n:], data[n:n+commitIDOffset])
		at += copy(im.entry[at:], data[n+commitIDOffset:n+blk.SectorSize])
	}
	copy(im.entry[at:], tag)
}

// unpack copies the block to p.
func (im image) unpack(p []byte) {
	copy(p, im.data)
	at := entryHeader
	for n := 0; n < len(im.data); n += blk.SectorSize {
		copy(p[n+commitIDOffset:n+blk.SectorSize], im.entry[at:at+commitIDSize])
		at += commitIDSize
	}
}

// sector returns the first sector of the block, or false if the entry is unused.
func (im image) sector() (sector uint64, used bool) {
	s := binary.LittleEndian.Uint64(im.entry)
	return s, s>>32 != unusedEntry
}

func (im image) tag(size int) []byte {
	return im.entry[entryHeader+len(im.data)/blk.SectorSize*commitIDSize:][:size]
}

// find returns the newest image of the block at a sector, or the zero image. Called with mu
// held; the caller owns a span with the sector.
func (j *journal) find(sector uint64) image {
	at, ok := j.where[sector]
	if !ok {
		return image{}
	}
	return j.layout.image(j.sections[at.section].image, at.entry)
}

// add journals the blocks of a span. It waits for room, and fails if a commit or write-back
// fails meanwhile.
func (j *journal) add(s span, data, tags []byte) blk.Status {
	n := s.sectors >> j.layout.logBlock
	var first slot
	failures, failed := j.failuresSoFar(), false
	j.acquire(s, func() bool {
		if failed = j.free < n && j.failures != failures; failed {
			return true
		}
		if j.free < n {
			j.requestRoom()
			return false
		}
		first = j.take(s, n)
		return true
	})
	defer j.release(s)
	if failed {
		return blk.StatusOf(j.lastFailure())
	}
	size := int(j.layout.blockSectors * blk.SectorSize)
	at := first
	for i := range int(n) {
		im := j.layout.image(j.sections[at.section].image, at.entry)
		im.pack(s.sector+uint64(i)<<j.layout.logBlock, data[i*size:(i+1)*size], tags[i*j.layout.tagSize:][:j.layout.tagSize])
		at = j.after(at)
	}
	j.copied(first, n)
	return blk.OK
}

func (j *journal) failuresSoFar() uint64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failures
}

func (j *journal) lastFailure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failure
}

// requestRoom schedules a commit and write-back of the whole journal. Called with mu held.
func (j *journal) requestRoom() {
	j.needRoom = true
	j.committer.Queue(&j.commitWork)
}

// after returns the entry that follows another in the ring.
func (j *journal) after(at slot) slot {
	if at.entry++; at.entry == j.layout.sectionEntries {
		return slot{j.next(at.section), 0}
	}
	return at
}

// take reserves the n entries for the blocks of s, and returns the first. At least n must
// be free. The caller then fills them and calls copied. Called with mu held.
func (j *journal) take(s span, n uint64) (first slot) {
	if j.uncommitted == 0 && j.fillEntry == 0 {
		j.armCommit()
	}
	first = slot{j.fill, j.fillEntry}
	for at := s.sector; at < s.end(); at += j.layout.blockSectors {
		sec := &j.sections[j.fill]
		if sec.image == nil {
			sec.image = j.empty(j.fill, j.fillSeq)
		}
		sec.copying++
		j.where[at] = slot{j.fill, j.fillEntry}
		if j.fillEntry++; j.fillEntry == j.layout.sectionEntries {
			j.nextSection()
		}
	}
	j.free -= n
	return first
}

// nextSection makes section fill uncommitted and continues with the next. Called with mu
// held.
func (j *journal) nextSection() {
	j.fillEntry = 0
	j.uncommitted++
	if j.fill = j.next(j.fill); j.fill == 0 {
		j.fillSeq = nextSeq(j.fillSeq)
	}
}

// copied records that n entries reserved by take are filled.
func (j *journal) copied(at slot, n uint64) {
	j.mu.Lock()
	for range n {
		j.sections[at.section].copying--
		at = j.after(at)
	}
	j.mu.Unlock()
	j.wait.Wake()
}

// drain waits until no block of a span is in the journal, and acquires the span. It acquires
// the span even if it fails because of a failing commit or write-back.
func (j *journal) drain(s span) (st blk.Status) {
	failures := j.failuresSoFar()
	j.acquire(s, func() bool {
		switch {
		case !j.hasSome(s):
			return true
		case j.failures != failures:
			st = blk.StatusOf(j.failure)
			return true
		}
		j.requestRoom()
		return false
	})
	return st
}

// hasSome reports whether the journal has any block of a span. Called with mu held.
func (j *journal) hasSome(s span) bool {
	for sector := range j.where {
		if s.sector <= sector && sector < s.end() {
			return true
		}
	}
	return false
}

// uncommittedBlocks reports whether blocks are journaled that are not committed.
func (j *journal) uncommittedBlocks() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.uncommitted > 0 || j.fillEntry > 0
}

// commitAll commits all journaled blocks. It runs on the queue committer, or when that is
// idle.
func (j *journal) commitAll() error {
	j.mu.Lock()
	if j.fillEntry > 0 {
		j.free -= j.layout.sectionEntries - j.fillEntry
		j.nextSection()
	}
	first, n := j.commit, j.uncommitted
	j.mu.Unlock()
	err := j.write(first, n)
	j.mu.Lock()
	if err == nil {
		j.commit = (j.commit + n) % j.layout.sections
		j.uncommitted -= n
		j.committed += n
		j.wrote = j.wrote || n > 0
	} else {
		j.failures, j.failure = j.failures+1, err
	}
	more := j.committed > 0 && (j.needRoom || j.free <= j.threshold)
	j.mu.Unlock()
	if err != nil {
		j.wait.Wake()
		j.target.Log().Error("integrity: cannot write the journal", "error", err)
	} else if more {
		j.writer.Queue(&j.writeWork)
	}
	return err
}

// write writes n sections and makes them durable. It waits for blocks that are being copied
// into them.
func (j *journal) write(at, n uint64) error {
	if n == 0 {
		return nil
	}
	for range n {
		j.wait.Until(func() bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.sections[at].copying == 0
		})
		if err := j.store(at, j.sections[at].image); err != nil {
			return err
		}
		at = j.next(at)
	}
	return blk.FlushDevice(j.env, j.meta)
}

// writeBack writes committed blocks to their final locations, makes them durable, and frees
// their sections. It runs on the queue writer, or when that is idle.
func (j *journal) writeBack() {
	j.mu.Lock()
	first, n := j.done, j.committed
	j.mu.Unlock()
	err := j.writeSections(first, n)
	j.mu.Lock()
	if err == nil {
		for range n {
			j.dropSection(j.done)
			j.done = j.next(j.done)
		}
		j.committed -= n
		j.free += n * j.layout.sectionEntries
		j.needRoom = false
	} else {
		j.failures, j.failure = j.failures+1, err
	}
	j.mu.Unlock()
	j.wait.Wake()
	if err != nil {
		j.target.Log().Error("integrity: cannot write back journaled blocks", "error", err)
	}
}

// dropSection frees the memory of a section whose blocks were written back or have a newer
// version in the committed sections. Called with mu held.
func (j *journal) dropSection(at uint64) {
	for e := range j.layout.sectionEntries {
		sector, ok := j.layout.image(j.sections[at].image, e).sector()
		if ok && j.where[sector] == (slot{at, e}) {
			delete(j.where, sector)
		}
	}
	j.sections[at] = section{}
}

// writeSections writes back the blocks of n sections that have no newer version in the committed
// sections. One that is not committed may be lost, when the section of the older is already
// overwritten.
func (j *journal) writeSections(at, n uint64) error {
	if n == 0 {
		return nil
	}
	for range n {
		if err := j.writeSection(j.sections[at].image, func(sector, e uint64) bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			newest := j.where[sector]
			return newest == (slot{at, e}) || !j.isCommitted(newest.section)
		}); err != nil {
			return err
		}
		at = j.next(at)
	}
	return j.flushDevices()
}

// isCommitted reports whether a section is committed and not written back. Called with mu held.
func (j *journal) isCommitted(at uint64) bool {
	return (at+j.layout.sections-j.done)%j.layout.sections < j.committed
}

// writeSection writes back the blocks of a section for which wanted returns true.
func (j *journal) writeSection(p []byte, wanted func(sector, e uint64) bool) error {
	l := j.layout
	data := make([]byte, 0, l.sectionEntries<<l.logBlock*blk.SectorSize)
	tags := make([]byte, 0, l.sectionEntries*uint64(l.tagSize))
	var run span
	flush := func() error {
		if run.sectors == 0 {
			return nil
		}
		err := blk.WriteSectors(j.env, j.dev, data, j.dataSector(run.sector), 0)
		if err == nil {
			err = j.tags.write(tags, l.tag(run.sector))
		}
		data, tags, run = data[:0], tags[:0], span{}
		return err
	}
	for e := range l.sectionEntries {
		im := l.image(p, e)
		sector, ok := im.sector()
		if !ok || !wanted(sector, e) {
			continue
		}
		if sector != run.end() || run.sectors == 0 || sector == l.areaEnd(run.sector) {
			if err := flush(); err != nil {
				return err
			}
			run.sector = sector
		}
		run.sectors += l.blockSectors
		size := len(data)
		data = data[:size+len(im.data)]
		im.unpack(data[size:])
		tags = append(tags, im.tag(l.tagSize)...)
	}
	return flush()
}

// flushDevices writes changed tags and flushes the devices.
func (g *integrity) flushDevices() error {
	err := g.tags.flush()
	if err == nil {
		err = blk.FlushDevice(g.env, g.dev)
	}
	if err == nil && g.meta != g.dev {
		err = blk.FlushDevice(g.env, g.meta)
	}
	return err
}
