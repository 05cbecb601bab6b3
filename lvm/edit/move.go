package edit

import (
	"fmt"
	"slices"

	"udm/blk"
	"udm/env"
	"udm/lvm"
	"udm/lvm/text"
)

// move is data of a volume that has to be copied.
type move struct {
	lv       string
	from, to *lvm.Found
	src, dst uint64 // sectors
	sectors  uint64
	place    lvm.Place // the new place
	count    uint64    // extents
}

// Evacuate moves the extents on a disk to others of the group: to those named, or to any.
// With a volume, only its extents and those of its parts are moved. The commit copies
// the data before the text changes.
func (ed *Edit) Evacuate(disk, volume string, to []string) error {
	return ed.try(func() error {
		from, err := ed.disk(disk)
		if err != nil {
			return err
		}
		targets, err := ed.targets(from, to)
		if err != nil {
			return err
		}
		before := len(ed.moves)
		for _, l := range ed.group.LVs {
			if !liesOn(l, from.Name) || volume != "" && l.Name != volume && !ed.part(l, volume) {
				continue
			}
			if err := ed.movable(l); err != nil {
				return err
			}
			if err := ed.evacuate(l, from.Name, targets); err != nil {
				return err
			}
		}
		if len(ed.moves) == before {
			return fmt.Errorf("there is nothing to move on %s", disk)
		}
		return nil
	})
}

// targets are the names in the text of the disks that extents may go to.
func (ed *Edit) targets(from *lvm.PV, disks []string) (names []string, err error) {
	for _, d := range disks {
		p, err := ed.disk(d)
		if err != nil {
			return nil, err
		}
		names = append(names, p.Name)
	}
	if len(disks) == 0 {
		for _, p := range ed.group.PVs {
			names = append(names, p.Name)
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return n == from.Name }), nil
}

// part reports whether l is a part of a volume, at any depth.
func (ed *Edit) part(l *lvm.LV, volume string) bool {
	return slices.ContainsFunc(ed.group.Users(l), func(u *lvm.LV) bool { return u.Name == volume || ed.part(u, volume) })
}

// movable fails for volumes whose parts have to stay on disks of their own, and for those
// that are being moved.
func (ed *Edit) movable(l *lvm.LV) error {
	if ed.inUse(l) || slices.ContainsFunc(ed.group.Users(l), ed.inUse) {
		return fmt.Errorf("%s is active; deactivate it first: udm lvm deactivate %s", l.Name, ed.group.Name)
	}
	if slices.Contains(l.Status, "LOCKED") || slices.Contains(l.Status, "PVMOVE") {
		return fmt.Errorf("%s is being moved by LVM; let pvmove finish it", l.Name)
	}
	for _, s := range l.Segments {
		if _, ok := s.Kind.(*lvm.Striped); !ok {
			return fmt.Errorf("%s is of type %s, which udm does not move", l.Name, s.Type)
		}
	}
	for _, u := range ed.group.Users(l) {
		switch u.Segments[0].Kind.(type) {
		case *lvm.Mirror, *lvm.Raid:
			return fmt.Errorf("%s is a part of %s, whose parts udm does not move, as they must stay on different disks", l.Name, u.Name)
		}
	}
	return nil
}

// evacuate gives the segments of a volume that are on a disk new places.
func (ed *Edit) evacuate(l *lvm.LV, from string, targets []string) error {
	old := l.Segments
	l.Text.Set("segment_count", text.Int(0))
	for i := range old {
		l.Text.Delete(segmentName(uint64(i + 1)))
	}
	for _, s := range old {
		for rest := s; rest != nil; {
			var done *lvm.Segment
			var err error
			if done, rest, err = ed.relocate(l, rest, from, targets); err != nil {
				return err
			}
			appendSegment(l.Text, resegment(s, done))
		}
	}
	return ed.decode()
}

// relocate gives the beginning of a segment new places, as much of it as fits into one
// piece, and returns what is left of it.
func (ed *Edit) relocate(l *lvm.LV, s *lvm.Segment, from string, targets []string) (done, rest *lvm.Segment, err error) {
	stripes := s.Places()
	i := slices.IndexFunc(stripes, func(p lvm.Place) bool { return p.Name == from })
	if i < 0 {
		return s, nil, nil
	}
	each := s.Count / uint64(len(stripes))
	runs := ed.room(targets, stripes)
	to := smallest(runs, each)
	if to == nil {
		if widest := widest(runs, 1); len(widest) > 0 {
			to = &widest[0]
		}
	}
	if to == nil {
		return nil, nil, fmt.Errorf("%d extents of %s have no room on the other disks", each, l.Name)
	}
	n := min(each, to.Count)
	place := lvm.Place{Name: to.pv, Start: to.Start}
	ed.moves = append(ed.moves, move{l.Name, ed.disks[from], ed.disks[to.pv], ed.sector(stripes[i]), ed.sector(place), n * ed.group.ExtentSize, place, n})
	done, rest = split(s, n*uint64(len(stripes)))
	stripes = slices.Clone(stripes)
	stripes[i] = place
	done.Kind = &lvm.Striped{StripeSize: s.Kind.(*lvm.Striped).StripeSize, Stripes: stripes}
	if slices.ContainsFunc(stripes, func(p lvm.Place) bool { return p.Name == from }) {
		return nil, nil, fmt.Errorf("%s has two stripes on one disk, which udm does not move", l.Name)
	}
	return done, rest, nil
}

// room returns the free runs of disks that a segment is not on already, without what moves
// of this edit take.
func (ed *Edit) room(targets []string, stripes []lvm.Place) (runs []run) {
	for _, r := range ed.free() {
		if slices.Contains(targets, r.pv) && !slices.ContainsFunc(stripes, func(p lvm.Place) bool { return p.Name == r.pv }) {
			runs = append(runs, ed.untaken(r)...)
		}
	}
	return runs
}

// untaken returns what moves leave of a free run. They take its beginning first.
func (ed *Edit) untaken(r run) []run {
	for _, m := range ed.moves {
		if m.place.Name == r.pv && m.place.Start == r.Start {
			r.Start, r.Count = r.Start+m.count, r.Count-min(m.count, r.Count)
		}
	}
	if r.Count == 0 {
		return nil
	}
	return []run{r}
}

// split cuts a segment behind n extents.
func split(s *lvm.Segment, n uint64) (first, rest *lvm.Segment) {
	a := *s
	a.Count = n
	if n == s.Count {
		return &a, nil
	}
	k := s.Kind.(*lvm.Striped)
	b := *s
	b.Start, b.Count = s.Start+n, s.Count-n
	behind := slices.Clone(k.Stripes)
	for i := range behind {
		behind[i].Start += n / uint64(len(behind))
	}
	b.Kind = &lvm.Striped{StripeSize: k.StripeSize, Stripes: behind}
	return &a, &b
}

// resegment is the text of a part of a segment.
func resegment(old, s *lvm.Segment) *text.Section {
	c := old.Text.Clone()
	c.Set("start_extent", text.Int(s.Start))
	c.Set("extent_count", text.Int(s.Count))
	stripes := text.Array{}
	for _, p := range s.Places() {
		stripes = append(stripes, text.String(p.Name), text.Int(p.Start))
	}
	c.Set("stripes", stripes)
	return c
}

// copyMoves copies the data of moves to their new places.
func (ed *Edit) copyMoves() error {
	var done, total uint64
	for _, m := range ed.moves {
		total += m.sectors * blk.SectorSize
	}
	copied := func(bytes int) {
		done += uint64(bytes)
		if ed.Progress != nil {
			ed.Progress(done, total)
		}
	}
	for _, m := range ed.moves {
		if err := m.copy(ed.env, copied); err != nil {
			return fmt.Errorf("%s: %w", m.lv, err)
		}
	}
	return nil
}

// copyUnit is how much is copied at once, in sectors: a MiB.
const copyUnit = 2048

func (m *move) copy(e env.Env, copied func(bytes int)) error {
	p := make([]byte, copyUnit*blk.SectorSize)
	for at := uint64(0); at < m.sectors; at += copyUnit {
		part := p[:min(m.sectors-at, copyUnit)*blk.SectorSize]
		err := blk.ReadSectors(e, m.from.Device, part, m.src+at)
		if err == nil {
			err = blk.WriteSectors(e, m.to.Device, part, m.dst+at, 0)
		}
		if err != nil {
			return err
		}
		copied(len(part))
	}
	return blk.NewFile(e, m.to.Device).Sync()
}

// sector is where an extent begins on its disk.
func (ed *Edit) sector(p lvm.Place) uint64 {
	return ed.group.PV(p.Name).Start + p.Start*ed.group.ExtentSize
}
