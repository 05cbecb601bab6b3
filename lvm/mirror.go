package lvm

import (
	"slices"

	"udm/dm"
	"udm/targets/linear"
	"udm/targets/mirror"
)

// mirror returns the line of a mirror or of a part of a pvmove. What is only read comes from
// one copy: a mirror would make them alike.
func (t *tree) mirror(l *LV, i int, s *Segment, k *Mirror) (dm.Line, error) {
	if one := t.oneCopy(l, i, s, k); one >= 0 {
		p, err := t.copy(l, i, s, one)
		return &linear.Line{Place: p}, err
	}
	line := &mirror.Line{Region: regionSize(t.ExtentSize, s.Count, k.RegionSize), HandleErrors: !l.has("PVMOVE")}
	var err error
	if k.Log != "" {
		if line.Log, err = t.layerOf(k.Log); err != nil {
			return nil, err
		}
	}
	for n := range k.Mirrors {
		p, err := t.copy(l, i, s, n)
		if err != nil {
			return nil, err
		}
		line.Legs = append(line.Legs, p)
	}
	return line, nil
}

func (t *tree) copy(l *LV, i int, s *Segment, n int) (dm.Place, error) {
	return t.place(l, s, missingName(i, n), places(s)[n])
}

// oneCopy returns the number of the copy that a segment consists of, or -1 if it is to be a
// mirror. A pvmove copies one segment after the other: those before are at the new place,
// those behind still at the old one.
func (t *tree) oneCopy(l *LV, i int, s *Segment, k *Mirror) int {
	switch {
	case len(k.Mirrors) == 1:
		return 0
	case !l.has("PVMOVE"):
		if t.options.ReadOnly {
			return max(0, slices.IndexFunc(k.Mirrors, t.whole))
		}
	case k.Moved == s.Count:
		return 1
	case t.options.ReadOnly || i > firstToMove(l):
		return 0
	}
	return -1
}

// whole reports whether no part of a copy is on a missing disk.
func (t *tree) whole(p Place) bool {
	if t.pvs[p.Name] != nil {
		return t.Disks[p.Name] != nil
	}
	return !t.Partial(t.lvs[p.Name])
}

// firstToMove is the segment that a pvmove is copying.
func firstToMove(l *LV) int {
	return slices.IndexFunc(l.Segments, func(s *Segment) bool {
		k, ok := s.Kind.(*Mirror)
		return ok && k.Moved != s.Count
	})
}

// defaultRegion is the size of regions where the text has none, in sectors.
const defaultRegion = 4096

// regionSize is LVM's: at most the largest power of two that divides the segment.
func regionSize(extent, count, region uint64) uint32 {
	if region == 0 {
		region = defaultRegion
	}
	return uint32(min(region, (count&-count)*(extent&-extent)))
}
