package integrity

import (
	"encoding/binary"
	"errors"
	"fmt"

	"udm/blk"
)

// scan is what the commit ids of a journal on disk say. The sections were committed in
// the order of the ring, with one sequence number from section 0 to the last, and the
// next number in the next round. So of the four numbers at most three are there: that of
// this round, up to some section, that of the round before behind it, and after a power
// cut in the middle of a commit perhaps both in one section.
type scan struct {
	used    [commitSeqs]bool
	highest [commitSeqs]uint64 // the last section with the number
	empty   bool               // no section has an entry
}

// replay writes what was committed to its place, and makes the journal one to go on
// with. Blocks of a commit that was cut off were never promised, and are left out. A
// journal that cannot be the outcome of a power cut is damaged, and nothing is done.
func (j *journal) replay() error {
	s, err := j.scan()
	if err != nil {
		return err
	}
	last, ok := s.last()
	if !ok {
		return errors.New("the journal is damaged: all sequence numbers are in it; mode R reads the disk without it")
	}
	first, seq := s.begin(last, j.layout.sections)
	empty := s.emptied(last)
	whole, err := j.replayFrom(first, seq, empty)
	if err != nil {
		return err
	}
	if whole == j.layout.sections && (j.line.Mode == "J" || empty) {
		j.reset(first, nextSeq(seq))
		return nil
	}
	return j.clear(first, prevSeq(prevSeq(last)))
}

// read reads a section.
func (j *journal) read(at uint64) ([]byte, error) {
	p := make([]byte, j.layout.sectionSectors*blk.SectorSize)
	err := blk.ReadSectors(j.env, j.meta, p, j.start+j.layout.section(at, 0))
	return p, err
}

// seqOf is the sequence number of a sector of a section.
func (j *journal) seqOf(p []byte, at, n uint64) (int, bool) {
	id := binary.LittleEndian.Uint64(p[n*blk.SectorSize+commitIDOffset:])
	for seq := range commitSeqs {
		if id == j.id(at, n, seq) {
			return seq, true
		}
	}
	return 0, false
}

// scan reads all commit ids.
func (j *journal) scan() (*scan, error) {
	s := &scan{empty: true}
	for at := range j.layout.sections {
		p, err := j.read(at)
		if err != nil {
			return nil, err
		}
		for n := range j.layout.sectionSectors {
			seq, ok := j.seqOf(p, at, n)
			if !ok {
				return nil, fmt.Errorf("the journal is damaged: sector %d of section %d has no commit id; mode R reads the disk without it", n, at)
			}
			s.used[seq], s.highest[seq] = true, at
		}
		for e := range j.layout.sectionEntries {
			if _, ok := j.layout.image(p, e).sector(); ok {
				s.empty = false
			}
		}
	}
	return s, nil
}

// last is the newest sequence number.
func (s *scan) last() (seq int, ok bool) {
	if !s.used[commitSeqs-1] {
		unused := commitSeqs - 1
		for unused > 0 && !s.used[unused-1] {
			unused--
		}
		return prevSeq(unused), true
	}
	for unused, used := range s.used {
		if !used {
			return prevSeq(unused), true
		}
	}
	return 0, false
}

// begin is the oldest section, and its number.
func (s *scan) begin(last int, sections uint64) (first uint64, seq int) {
	seq = prevSeq(last)
	if first = s.highest[last] + 1; first >= sections {
		return 0, nextSeq(seq)
	}
	return first, seq
}

// emptied reports whether the journal was made empty, and not filled since.
func (s *scan) emptied(last int) bool {
	want := prevSeq(last)
	return s.empty || !s.used[want] && s.used[prevSeq(want)]
}

// replayFrom writes sections to their places, from first on, until one is not whole. It
// reports how many are.
func (j *journal) replayFrom(first uint64, seq int, empty bool) (whole uint64, err error) {
	at := first
	for ; whole < j.layout.sections; whole++ {
		p, err := j.read(at)
		if err != nil {
			return 0, err
		}
		for n := range j.layout.sectionSectors {
			if got, ok := j.seqOf(p, at, n); !ok || got != seq {
				return whole, j.flushPlaces()
			}
		}
		if !empty {
			if err := j.replaySection(at, p); err != nil {
				return 0, err
			}
		}
		if at = j.next(at); at == 0 {
			seq = nextSeq(seq)
		}
	}
	return whole, j.flushPlaces()
}

// replaySection checks the blocks of a section, and writes them to their places.
func (j *journal) replaySection(at uint64, p []byte) error {
	t := newTagger(j.newHash(), j.sb)
	block := make([]byte, j.layout.blockSectors*blk.SectorSize)
	for e := range j.layout.sectionEntries {
		im := j.layout.image(p, e)
		sector, ok := im.sector()
		if !ok || sector >= j.layout.provided && sector < j.sb.Provided { // the disk was larger
			continue
		}
		if sector >= j.layout.provided {
			return fmt.Errorf("the journal is damaged: an entry of section %d is for sector %d, which is not there", at, sector)
		}
		if sector%j.layout.blockSectors != 0 {
			return fmt.Errorf("the journal is damaged: an entry of section %d is for sector %d, which is no block's first", at, sector)
		}
		im.unpack(block)
		if string(t.tag(sector, block)) != string(im.tag(j.layout.tagSize)) {
			return fmt.Errorf("the journal is damaged: the tag of sector %d in section %d is wrong", sector, at)
		}
	}
	return j.writeSection(p, func(sector, _ uint64) bool { return sector < j.layout.provided })
}

// clear makes all sections empty, beginning with first: one, then all but the last, then
// the last. A power cut between them leaves what replay takes for empty. The numbers go
// on from seq.
func (j *journal) clear(first uint64, seq int) error {
	at := first
	for n := range j.layout.sections {
		if n <= 1 || n == j.layout.sections-1 {
			if err := blk.FlushDevice(j.env, j.meta); err != nil {
				return err
			}
		}
		if err := blk.WriteSectors(j.env, j.meta, j.empty(at, seq), j.start+j.layout.section(at, 0), 0); err != nil {
			return err
		}
		at = j.next(at)
	}
	j.reset(0, nextSeq(seq))
	return blk.FlushDevice(j.env, j.meta)
}

// settle makes the journal on disk empty after all was written to its place, so that
// nothing is replayed: the sections to come, as they will be numbered.
func (j *journal) settle() error {
	if !j.wrote {
		return nil
	}
	if j.committed+j.uncommitted > 0 || j.fillEntry > 0 {
		return errors.New("the journal is not empty")
	}
	seq := j.fillSeq
	for at, n := j.fill, uint64(0); n < j.layout.sections; n++ {
		if err := blk.WriteSectors(j.env, j.meta, j.empty(at, seq), j.start+j.layout.section(at, 0), 0); err != nil {
			return err
		}
		if at = j.next(at); at == 0 {
			seq = nextSeq(seq)
		}
	}
	j.wrote = false
	return blk.FlushDevice(j.env, j.meta)
}
