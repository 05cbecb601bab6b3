package snapshot

import (
	"udm/blk"
	"udm/targets/internal/segment"
)

// The allocation map of a snapshot is that of its origin, with data where there
// are exceptions. Chunks move from the origin to the COW device, or back in a
// merge, while it is put together. What is left is looked at first: whoever moved
// in between is seen in his new place.

// Bounds of what one call lists, and of the groups and chunks it looks at.
const maxExtents, maxSteps = 1024, 1 << 16

// Extents is data in a snapshot that is not valid any more, where reads fail.
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
	// Without exceptions an invalid snapshot would look like its origin.
	if list == nil || !s.has(flagValid) {
		return blk.AllData(offset, sectors)
	}
	return list
}

// below is the map of the origin.
func (s *snapshot) below(offset, sectors uint64) []blk.Extent {
	place := segment.Segment{Dev: s.origin, Start: s.target.Begin}
	return place.Extents(offset, sectors)
}

// exceptions has data where there are exceptions.
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

// look tells whether a chunk has an exception, and the first chunk behind it for
// which it cannot tell the same at once.
func (t *table) look(chunk uint64) (has bool, next uint64) {
	l := t.bucket(chunk).find(chunk >> groupShift)
	if l == nil {
		return false, (chunk>>groupShift + 1) << groupShift
	}
	_, has = l.lookup(chunk)
	return has, chunk + 1
}

// Extents is that of the origin.
func (o *origin) Extents(offset, sectors uint64) []blk.Extent {
	place := segment.Segment{Dev: o.dev, Start: o.target.Begin}
	return place.Extents(offset, sectors)
}
