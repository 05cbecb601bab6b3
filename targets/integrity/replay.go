package integrity

import (
	"encoding/binary"
	"errors"
	"fmt"

	"udm/blk"
)

// scan is the result of reading the commit ids of a journal on disk. Sections are committed
// in the order of the ring. All sections of one round through the ring have the same
// sequence number, and the next round has the next number. So at most three of the four
// numbers occur: the current round's up to some section, the previous round's after it, and
// after a power cut during a commit a section may have both.
type scan struct {
	used    [commitSeqs]bool
	highest [commitSeqs]uint64 // the last section with the number
	empty   bool               // no section has an entry
}

// replay writes committed blocks to their final locations and prepares the journal for new
// writes. It ignores blocks of an interrupted commit, which were never reported durable. If
// the journal cannot be the result of a power cut, it is damaged, and replay fails without
// changing anything.
func (j *journal) replay() error {
	s, err := j.scan()
	if err != nil {
		return err
	}
	last, ok := s.last()
	if !ok {
		return errors.New("the journal is damaged: it has all sequence numbers; use mode R to read the disk without the journal")
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

// seqOf returns the sequence number of sector n of section at, whose contents are p, or false
// if the commit id is invalid.
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
				return nil, fmt.Errorf("the journal is damaged: sector %d of section %d has an invalid commit id; use mode R to read the disk without the journal", n, at)
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

// last returns the newest sequence number, or false if that is ambiguous.
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

// begin returns the oldest section and its sequence number.
func (s *scan) begin(last int, sections uint64) (first uint64, seq int) {
	seq = prevSeq(last)
	if first = s.highest[last] + 1; first >= sections {
		return 0, nextSeq(seq)
	}
	return first, seq
}

// emptied reports whether the journal has been cleared and not been filled since.
func (s *scan) emptied(last int) bool {
	want := prevSeq(last)
	return s.empty || !s.used[want] && s.used[prevSeq(want)]
}

// replayFrom writes back sections in order, starting with first, until one is incomplete. It
// returns the number of complete sections.
func (j *journal) replayFrom(first uint64, seq int, empty bool) (whole uint64, err error) {
	at := first
	for ; whole < j.layout.sections; whole++ {
		p, err := j.read(at)
		if err != nil {
			return 0, err
		}
		for n := range j.layout.sectionSectors {
			if got, ok := j.seqOf(p, at, n); !ok || got != seq {
				return whole, j.flushDevices()
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
	return whole, j.flushDevices()
}

// replaySection verifies the blocks of a section and writes them back.
func (j *journal) replaySection(at uint64, p []byte) error {
	if j.forged(at, p) {
		return fmt.Errorf("the journal is damaged, or the key of journal_mac is wrong: section %d does not match its MAC", at)
	}
	t := newTagger(j.newHash, j.sb)
	block := make([]byte, j.layout.blockSectors*blk.SectorSize)
	for e := range j.layout.sectionEntries {
		im := j.layout.image(p, e)
		sector, ok := im.sector()
		if !ok || sector >= j.layout.provided && sector < j.sb.Provided { // the disk was larger
			continue
		}
		if sector >= j.layout.provided {
			return fmt.Errorf("the journal is damaged: an entry of section %d is for sector %d, beyond the end of the disk", at, sector)
		}
		if sector%j.layout.blockSectors != 0 {
			return fmt.Errorf("the journal is damaged: an entry of section %d is for sector %d, which is not the start of a block", at, sector)
		}
		im.unpack(block)
		if t != nil && string(t.tag(sector, block)) != string(im.tag(j.layout.tagSize)) {
			return fmt.Errorf("the journal is damaged: sector %d in section %d does not match its tag", sector, at)
		}
	}
	return j.writeSection(p, func(sector, _ uint64) bool { return sector < j.layout.provided })
}

// clear writes empty sections to disk, with the sequence number seq: section first, then all
// others but the last, then the last, with flushes in between. After a power cut in
// between, replay still recognizes the journal as empty.
func (j *journal) clear(first uint64, seq int) error {
	at := first
	for n := range j.layout.sections {
		if n <= 1 || n == j.layout.sections-1 {
			if err := blk.FlushDevice(j.env, j.meta); err != nil {
				return err
			}
		}
		if err := j.store(at, j.empty(at, seq)); err != nil {
			return err
		}
		at = j.next(at)
	}
	j.reset(0, nextSeq(seq))
	return blk.FlushDevice(j.env, j.meta)
}

// writeEmpty empties the journal on disk after everything was written back, so that nothing
// is replayed. It writes the next sections of the ring, with their future sequence numbers. The
// sections that follow get the numbers after these, as when the journal is read from disk:
// otherwise one that is written only in part would look complete.
func (j *journal) writeEmpty() error {
	if !j.wrote {
		return nil
	}
	if j.committed+j.uncommitted > 0 || j.fillEntry > 0 {
		return errors.New("the journal is not empty")
	}
	seq := j.fillSeq
	for at, n := j.fill, uint64(0); n < j.layout.sections; n++ {
		if err := j.store(at, j.empty(at, seq)); err != nil {
			return err
		}
		if at = j.next(at); at == 0 {
			seq = nextSeq(seq)
		}
	}
	j.wrote, j.fillSeq = false, nextSeq(j.fillSeq)
	return blk.FlushDevice(j.env, j.meta)
}
