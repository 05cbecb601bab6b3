package snapshot

import (
	"udm/blk"
	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// Discards of a snapshot never create exceptions. With discard_zeroes_cow, a chunk
// that has an exception is zeroed in the COW device if it is discarded whole;
// discarded parts of it are discarded there. With discard_passdown_origin, a second
// clone discards the origin, without copying for other snapshots.

// mapDiscard performs a discard chunk by chunk.
func (s *snapshot) mapDiscard(c *dm.Clone) dm.Outcome {
	if f := s.flags.Load(); f&flagValid == 0 || f&flagOverflowed != 0 {
		return dm.Kill
	}
	b := s.body.Load()
	part := s.discardCow
	if s.passdown && c.Num != 0 {
		part = s.discardOrigin
	}
	sector, end := c.Sector, c.EndSector()
	for sector < end {
		n := min(end-sector, b.mask+1-sector&b.mask)
		part(c, b, sector, n)
		sector += n
	}
	c.Complete(blk.OK)
	return dm.Submitted
}

// discardCow discards part of a chunk in the COW device. It holds c until that is
// done.
func (s *snapshot) discardCow(c *dm.Clone, b *body, sector, sectors uint64) {
	where, ok := b.complete.lookup(sector >> b.shift)
	if !ok {
		return
	}
	c.Hold()
	at := where<<b.shift | sector&b.mask
	if sectors == b.mask+1 {
		j := &kcopyd.Job{Sectors: sectors, Done: func(j *kcopyd.Job) { c.Complete(outcome(j.Failed())) }}
		j.SetTo(kcopyd.Place{Dev: s.cowDev, Sector: at})
		s.kc.Zero(j)
		return
	}
	s.cow.Submit(&blk.Bio{Op: blk.Discard, Sector: at, Sectors: sectors, End: func(b *blk.Bio) { c.Complete(b.Status()) }})
}

// discardOrigin discards part of a chunk in the origin. It is tracked like a read, so
// an exception created meanwhile waits for it.
func (s *snapshot) discardOrigin(c *dm.Clone, b *body, sector, sectors uint64) {
	c.Hold()
	io := &perIO{}
	s.tracked.add(io, sector>>b.shift, 1)
	s.origin.Submit(&blk.Bio{Op: blk.Discard, Sector: sector, Sectors: sectors, End: func(b *blk.Bio) {
		s.tracked.remove(io)
		c.Complete(b.Status())
	}})
}
