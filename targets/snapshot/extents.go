package snapshot

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// The allocation map of a snapshot is that of its origin, plus data where there are
// exceptions. While it is put together chunks may move from the origin to the COW
// device, or back in a merge. The place that chunks move away from is read first, so
// a chunk that moves in between is seen in its new place.

// Bounds of one call: extents listed, and groups and chunks examined.
const maxExtents, maxSteps = 1024, 1 << 16

// Extents reports everything as data once the snapshot is invalid; reads fail then.
func (s *snapshot) Extents(offset, sectors uint64) []blk.Extent {
	var list []blk.Extent
	b := s.body.Load()
	switch {
	case !s.has(flagValid):
	case s.merge == nil:
		below := s.below(offset, sectors)
		list = blk.EitherExtents(below, s.exceptions(b, offset, blk.SumExtents(below)))
	default:
		own := s.exceptions(b, offset, sectors)
		list = blk.EitherExtents(own, s.below(offset, blk.SumExtents(own)))
	}
	// An invalid snapshot without exceptions would look like its origin.
	if list == nil || !s.has(flagValid) {
		return blk.AllData(offset, sectors)
	}
	return list
}

// below returns the map of the origin.
func (s *snapshot) below(offset, sectors uint64) []blk.Extent {
	place := segment.Segment{Dev: s.origin, Start: s.target.Begin}
	return place.Extents(offset, sectors)
}

// exceptions reports chunks with exceptions as data.
func (s *snapshot) exceptions(b *body, offset, sectors uint64) (list []blk.Extent) {
	begin := s.target.Begin
	at, end := begin+offset, begin+offset+sectors
	for steps := 0; at < end && len(list) < maxExtents && steps < maxSteps; steps++ {
		data, next := b.complete.look(at >> b.shift)
		n := min(end, next<<b.shift) - at
		list = blk.AppendExtent(list, blk.Extent{Sector: at - begin, Sectors: n, Data: data})
		at += n
	}
	return list
}

// look reports whether a chunk has an exception, and the next chunk for which it
// cannot say the same at once.
func (t *table) look(chunk uint64) (has bool, next uint64) {
	l := t.bucket(chunk).find(chunk >> groupShift)
	if l == nil {
		return false, (chunk>>groupShift + 1) << groupShift
	}
	_, has = l.lookup(chunk)
	return has, chunk + 1
}

// Extents are those of the origin.
func (o *origin) Extents(offset, sectors uint64) []blk.Extent {
	place := segment.Segment{Dev: o.dev, Start: o.target.Begin}
	return place.Extents(offset, sectors)
}
