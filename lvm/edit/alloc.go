package edit

import (
	"fmt"
	"slices"

	"udm/lvm"
	"udm/lvm/text"
)

// Layout says where the extents of a volume go.
type Layout struct {
	Stripes       uint64 // number of disks to stripe over; 0 and 1: linear
	StripeSectors uint64 // 0: 64 KiB
	Contiguous    bool   // one piece on each disk, and an extension right behind it
}

// DefaultStripe is the size of stripes in sectors: 64 KiB.
const DefaultStripe = 128

func (o *Layout) check(extent uint64) error {
	if o.Stripes <= 1 {
		o.Stripes = 1
		return nil
	}
	if o.StripeSectors == 0 {
		o.StripeSectors = min(DefaultStripe, extent)
	}
	if n := o.StripeSectors; n < 8 || n&(n-1) != 0 || n > extent {
		return fmt.Errorf("stripes of %d sectors: their size must be a power of two from 4 KiB to the extent size", n)
	}
	return nil
}

// run is free extents of a physical volume.
type run struct {
	pv string
	lvm.Extents
}

// free returns the runs that may be allocated, in the order of the disks.
func (ed *Edit) free() (runs []run) {
	for _, p := range ed.group.PVs {
		if !slices.Contains(p.Status, "ALLOCATABLE") || p.Missing() {
			continue
		}
		for _, x := range p.Free() {
			runs = append(runs, run{p.Name, x})
		}
	}
	return runs
}

// Free is the number of extents that may be allocated.
func (ed *Edit) Free() (n uint64) {
	for _, r := range ed.free() {
		n += r.Count
	}
	return n
}

// extend allocates extents at the end of the volume whose section is lv.
func (ed *Edit) extend(lv *text.Section, extents uint64, o Layout) error {
	if err := o.check(ed.group.ExtentSize); err != nil {
		return err
	}
	runs := ed.free()
	for left := extents; left > 0; {
		piece, n := take(runs, lv, left, o)
		if n == 0 {
			return ed.noSpace(extents, o)
		}
		if !grow(lv, piece[0].pv, piece[0].Start, n, o) {
			appendSegment(lv, stripedSegment(end(lv), n, piece, o))
		}
		runs, left = without(runs, piece), left-n
	}
	return nil
}

func (ed *Edit) noSpace(extents uint64, o Layout) error {
	how := ""
	if o.Stripes > 1 {
		how = fmt.Sprintf(", on %d disks at once", o.Stripes)
	}
	if o.Contiguous {
		how += ", in one piece"
	}
	return fmt.Errorf("%d extents are needed%s, and %d are free in the group %s", extents, how, ed.Free(), ed.group.Name)
}

// take selects the next piece of a volume: extents on as many disks as there are
// stripes. n is their number on all disks together; 0: there are none.
func take(runs []run, lv *text.Section, left uint64, o Layout) (piece []run, n uint64) {
	if o.Stripes > 1 {
		piece = widest(runs, o.Stripes)
	} else if next := adjacent(runs, lv); next != nil {
		piece = []run{*next}
	} else if fit := smallest(runs, left); fit != nil {
		piece = []run{*fit}
	} else {
		piece = widest(runs, 1)
	}
	if o.Contiguous && o.Stripes == 1 && end(lv) > 0 && adjacent(runs, lv) == nil {
		return nil, 0
	}
	if len(piece) == 0 {
		return nil, 0
	}
	each := left / o.Stripes
	for _, r := range piece {
		each = min(each, r.Count)
	}
	if o.Contiguous && (each*o.Stripes < left || o.Stripes > 1 && end(lv) > 0) {
		return nil, 0
	}
	for i := range piece {
		piece[i].Count = each
	}
	return piece, each * o.Stripes
}

// adjacent returns the run right behind the end of a linear volume, or nil.
func adjacent(runs []run, lv *text.Section) *run {
	s := lastSegment(lv)
	if s == nil || s.Value("stripe_count") != text.Int(1) {
		return nil
	}
	a := s.Value("stripes").(text.Array)
	for i, r := range runs {
		if text.String(r.pv) == a[0] && r.Start == number(a[1])+number(s.Value("extent_count")) {
			return &runs[i]
		}
	}
	return nil
}

// smallest returns the smallest run that holds n extents, or nil.
func smallest(runs []run, n uint64) (best *run) {
	for i, r := range runs {
		if r.Count >= n && (best == nil || r.Count < best.Count) {
			best = &runs[i]
		}
	}
	return best
}

// widest returns the largest run of each of the n disks on which these are largest, or
// nothing if there are fewer disks with room.
func widest(runs []run, n uint64) []run {
	var list []run
	for _, r := range runs {
		i := slices.IndexFunc(list, func(o run) bool { return o.pv == r.pv })
		switch {
		case i < 0:
			list = append(list, r)
		case list[i].Count < r.Count:
			list[i] = r
		}
	}
	if uint64(len(list)) < n {
		return nil
	}
	slices.SortStableFunc(list, func(a, b run) int { return int(int64(b.Count) - int64(a.Count)) })
	return list[:n]
}

// without removes allocated extents, each the start of a run.
func without(runs, piece []run) (left []run) {
	for _, r := range runs {
		for _, p := range piece {
			if p.pv == r.pv && p.Start == r.Start {
				r.Start, r.Count = r.Start+p.Count, r.Count-p.Count
			}
		}
		if r.Count > 0 {
			left = append(left, r)
		}
	}
	return left
}
