package writecache

import (
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/internal/invariants"
)

// Report is what the metadata of a cache device say.
type Report struct {
	Superblock
	Committed   uint64 // entries that hold content
	Superseded  uint64 // of these, entries whose sector has a newer one
	Uncommitted uint64 // entries that a power cut has left behind
	Wrong       []string
}

// Err is what is wrong, or nil.
func (r *Report) Err() error {
	if len(r.Wrong) > 0 {
		return fmt.Errorf("%d faults, the first: %s", len(r.Wrong), r.Wrong[0])
	}
	return nil
}

// Check reads the metadata of a cache device that no table uses. start is the sector of
// the superblock.
func Check(e env.Env, d blk.Device, start uint64) (*Report, error) {
	p := make([]byte, granule)
	if err := blk.ReadSectors(e, d, p, start); err != nil {
		return nil, err
	}
	s, fresh, err := decodeSuperblock(p)
	switch {
	case err != nil:
		return nil, err
	case fresh:
		return nil, invalid("The device has no superblock")
	}
	if err := s.fits(s.BlockSize, (d.Limits().Size-start)*blk.SectorSize); err != nil {
		return nil, err
	}
	im := newImage(s)
	if err := blk.ReadSectors(e, d, im.p, start); err != nil {
		return nil, err
	}
	r := &Report{Superblock: *s}
	r.look(im)
	return r, nil
}

func (r *Report) look(im *image) {
	seen := map[uint64]map[uint64]bool{} // sequence counts by sector
	for i := range int32(r.Blocks) {
		sector, seq := im.get(i)
		switch {
		case seq == freeSeq:
			continue
		case seq >= r.Seq:
			r.Uncommitted++
			continue
		case sector%(uint64(r.BlockSize)/blk.SectorSize) != 0:
			r.Wrong = append(r.Wrong, fmt.Sprintf("entry %d is of sector %d, where no block begins", i, sector))
		case seen[sector][seq]:
			r.Wrong = append(r.Wrong, fmt.Sprintf("entry %d has the sector %d and the sequence count %d of another one", i, sector, seq))
		}
		if r.Committed++; seen[sector] == nil {
			seen[sector] = map[uint64]bool{}
		} else {
			r.Superseded++
		}
		seen[sector][seq] = true
	}
}

// verify compares memory with the image in builds with invariants, while no I/O is in
// flight.
func (w *writecache) verify() {
	if !invariants.Enabled {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	listed := 0
	for i := w.entries.oldest; i != none; i = w.entries.all[i].newer {
		listed++
		e := &w.entries.all[i]
		invariants.Check(e.state == live && w.entries.readable(e.sector) == i, "block %d, of sector %d, is listed and in state %d", i, e.sector, e.state)
		sector, seq := w.image.get(i)
		invariants.Check(w.err != nil || e.seq >= w.committed || sector == e.sector && seq == e.seq, "block %d is committed, but not in the metadata", i)
	}
	out := 0
	for i := range w.entries.all {
		if e := &w.entries.all[i]; e.state != free && e.state != live {
			out++
		}
	}
	invariants.Check(listed+out+w.freeSet.size == len(w.entries.all), "%d blocks are listed, %d free, %d others, of %d", listed, w.freeSet.size, out, len(w.entries.all))
}
