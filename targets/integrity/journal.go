package integrity

import (
	"encoding/binary"

	"udm/blk"
)

// journal collects writes in sections, which are committed to disk and then written to
// their places. The sections are a ring:
//
//	│ free │ committed … │ uncommitted … │ filling │ free …
//	        done          commit          fill
//
// All fields below are guarded by integrity.mu.
type journal struct {
	*integrity
	ids [4]uint64 // from which the commit ids are made

	sections []section
	where    map[uint64]slot // of each block that was not written to its place yet, by its first sector

	fill, fillEntry uint64 // where the next block goes
	fillSeq         int    // of the commit ids of section fill
	commit          uint64 // the first uncommitted section
	uncommitted     uint64 // sections that are full
	done            uint64 // the first committed section
	committed       uint64
	free            uint64 // entries

	wrote    bool // the journal on disk has something
	starved  bool // somebody waits for room
	failures uint64
}

// slot is an entry of a section.
type slot struct{ section, entry uint64 }

// section is a part of the journal. Its memory is never changed where somebody may read
// it, and is dropped when its blocks are at their places.
type section struct {
	image   []byte // as on disk, with commit ids; nil: nothing in it
	copying int    // blocks that are being put in
}

// image is a block in a section.
type image struct{ entry, data []byte }

const (
	unusedEntry    = 0xffffffff // high half of an entry's sector
	commitSeqs     = 4
	firstCommitID  = 0x1111111111111111
	sectorInEntry  = 8
	bytesOfLastOne = 8
)

func newJournal(g *integrity) *journal {
	j := &journal{integrity: g, sections: make([]section, g.layout.sections)}
	for i := range j.ids {
		j.ids[i] = firstCommitID * uint64(i+1)
	}
	j.reset(0, 0)
	return j
}

// reset makes the journal empty, to go on at a section.
func (j *journal) reset(at uint64, seq int) {
	clear(j.sections)
	j.where = make(map[uint64]slot)
	j.fill, j.fillEntry, j.fillSeq = at, 0, seq
	j.commit, j.uncommitted, j.done, j.committed = at, 0, at, 0
	j.free = j.layout.entries()
}

func nextSeq(seq int) int { return (seq + 1) % commitSeqs }
func prevSeq(seq int) int { return (seq + commitSeqs - 1) % commitSeqs }

// id is the commit id of a sector of a section.
func (j *journal) id(section, n uint64, seq int) uint64 { return j.ids[seq] ^ (section<<32 ^ n) }

// next is the section behind another.
func (j *journal) next(section uint64) uint64 {
	if section++; section == j.layout.sections {
		return 0
	}
	return section
}

// empty makes the image of a section without entries.
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

// image is an entry of a section and its block.
func (l *layout) image(section []byte, e uint64) image {
	at := e%journalBlock*blk.SectorSize + e/journalBlock*uint64(l.entrySize)
	data := (journalBlock + e<<l.logBlock) * blk.SectorSize
	return image{section[at:][:l.entrySize], section[data:][:l.blockSectors*blk.SectorSize]}
}

// pack puts a block and its tag in. The last bytes of each sector go into the entry,
// since the commit id is there.
func (im image) pack(sector uint64, data, tag []byte) {
	binary.LittleEndian.PutUint64(im.entry, sector)
	at := sectorInEntry
	for n := 0; n < len(data); n += blk.SectorSize {
		copy(im.data[n:], data[n:n+commitIDOffset])
		at += copy(im.entry[at:], data[n+commitIDOffset:n+blk.SectorSize])
	}
	copy(im.entry[at:], tag)
}

// unpack puts the block into p.
func (im image) unpack(p []byte) {
	copy(p, im.data)
	at := sectorInEntry
	for n := 0; n < len(im.data); n += blk.SectorSize {
		copy(p[n+commitIDOffset:n+blk.SectorSize], im.entry[at:at+bytesOfLastOne])
		at += bytesOfLastOne
	}
}

// sector is the block's first sector; false: there is none.
func (im image) sector() (uint64, bool) {
	s := binary.LittleEndian.Uint64(im.entry)
	return s, s>>32 != unusedEntry
}

func (im image) tag(size int) []byte {
	return im.entry[sectorInEntry+len(im.data)/blk.SectorSize*bytesOfLastOne:][:size]
}

// find is the image of the block at a sector, if the journal has it.
func (j *journal) find(sector uint64) image {
	at, ok := j.where[sector]
	if !ok {
		return image{}
	}
	return j.layout.image(j.sections[at.section].image, at.entry)
}

// add puts the blocks of a span in. It waits for room, and fails if there is none
// because the disk fails.
func (j *journal) add(s span, data, tags []byte) blk.Status {
	n := s.sectors >> j.layout.logBlock
	var first slot
	failures, failed := j.failuresSoFar(), false
	j.acquire(s, func() bool {
		if failed = j.free < n && j.failures != failures; failed {
			return true
		}
		if j.free < n {
			j.starve()
			return false
		}
		first = j.take(s, n)
		return true
	})
	defer j.release(s)
	if failed {
		return blk.IOErr
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

// starve has everything committed and written. Called with mu held.
func (j *journal) starve() {
	j.starved = true
	j.committer.Queue(&j.commitWork)
}

// after is the entry behind another.
func (j *journal) after(at slot) slot {
	if at.entry++; at.entry == j.layout.sectionEntries {
		return slot{j.next(at.section), 0}
	}
	return at
}

// take reserves n entries for the blocks of s; there are as many. Called with mu held.
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

// nextSection ends the filling of a section.
func (j *journal) nextSection() {
	j.fillEntry = 0
	j.uncommitted++
	if j.fill = j.next(j.fill); j.fill == 0 {
		j.fillSeq = nextSeq(j.fillSeq)
	}
}

// copied says that the blocks which take has reserved room for are in.
func (j *journal) copied(at slot, n uint64) {
	j.mu.Lock()
	for range n {
		j.sections[at.section].copying--
		at = j.after(at)
	}
	j.mu.Unlock()
	j.wait.Wake()
}

// drain has what the journal has of a span written to its place, and then has the span.
func (j *journal) drain(s span) (st blk.Status) {
	failures := j.failuresSoFar()
	j.acquire(s, func() bool {
		switch {
		case !j.hasSome(s):
			return true
		case j.failures != failures:
			st = blk.IOErr
			return true
		}
		j.starve()
		return false
	})
	return st
}

// hasSome reports whether the journal has a block of a span. Called with mu held.
func (j *journal) hasSome(s span) bool {
	for sector := range j.where {
		if s.sector <= sector && sector < s.end() {
			return true
		}
	}
	return false
}

// commitAll commits what was journaled, on the queue committer.
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
		j.failures++
	}
	more := j.committed > 0 && (j.starved || j.free <= j.threshold)
	j.mu.Unlock()
	if err != nil {
		j.wait.Wake()
		j.target.Log().Error("integrity: the journal cannot be written", "error", err)
	} else if more {
		j.writer.Queue(&j.writeWork)
	}
	return err
}

// write writes sections and makes them durable.
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
		if err := blk.WriteSectors(j.env, j.meta, j.sections[at].image, j.start+j.layout.section(at, 0), 0); err != nil {
			return err
		}
		at = j.next(at)
	}
	return blk.FlushDevice(j.env, j.meta)
}

// writeBack writes committed blocks to their places, makes them durable, and frees
// their sections. It is a work of the queue writer.
func (j *journal) writeBack() {
	j.mu.Lock()
	first, n := j.done, j.committed
	j.mu.Unlock()
	err := j.writePlaces(first, n)
	j.mu.Lock()
	if err == nil {
		for range n {
			j.forget(j.done)
			j.done = j.next(j.done)
		}
		j.committed -= n
		j.free += n * j.layout.sectionEntries
		j.starved = false
	} else {
		j.failures++
	}
	j.mu.Unlock()
	j.wait.Wake()
	if err != nil {
		j.target.Log().Error("integrity: journaled blocks cannot be written to their places", "error", err)
	}
}

// forget drops a section, whose blocks are at their places or were overwritten in a
// later one.
func (j *journal) forget(at uint64) {
	for e := range j.layout.sectionEntries {
		sector, ok := j.layout.image(j.sections[at].image, e).sector()
		if ok && j.where[sector] == (slot{at, e}) {
			delete(j.where, sector)
		}
	}
	j.sections[at] = section{}
}

func (j *journal) writePlaces(at, n uint64) error {
	if n == 0 {
		return nil
	}
	for range n {
		if err := j.writeSection(j.sections[at].image, func(sector, e uint64) bool {
			j.mu.Lock()
			defer j.mu.Unlock()
			return j.where[sector] == (slot{at, e})
		}); err != nil {
			return err
		}
		at = j.next(at)
	}
	return j.flushPlaces()
}

// writeSection writes the blocks of a section to their places, those that wanted says.
func (j *journal) writeSection(p []byte, wanted func(sector, e uint64) bool) error {
	l := j.layout
	data := make([]byte, 0, l.sectionEntries<<l.logBlock*blk.SectorSize)
	tags := make([]byte, 0, l.sectionEntries*uint64(l.tagSize))
	var run span
	flush := func() error {
		if run.sectors == 0 {
			return nil
		}
		err := blk.WriteSectors(j.env, j.dev, data, j.place(run.sector), 0)
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

// flushPlaces makes durable what was written to its place, and tags.
func (g *integrity) flushPlaces() error {
	err := g.tags.flush()
	if err == nil {
		err = blk.FlushDevice(g.env, g.dev)
	}
	if err == nil && g.meta != g.dev {
		err = blk.FlushDevice(g.env, g.meta)
	}
	return err
}
