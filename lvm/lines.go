package lvm

import (
	"cmp"
	"fmt"

	"udm/dm"
	errortarget "udm/targets/error"
	"udm/targets/linear"
	"udm/targets/snapshot"
	"udm/targets/striped"
	"udm/targets/thin"
	"udm/targets/zero"
)

func linearLine(device string, start uint64) *linear.Line {
	return &linear.Line{Place: dm.Place{Device: device, Start: start}}
}

// segments returns the lines of a volume's own segments.
func (t *tree) segments(l *LV) (lines []Line, err error) {
	for i, s := range l.Segments {
		line, err := t.segment(l, i, s)
		if err != nil {
			return nil, err
		}
		lines = append(lines, Line{s.Start * t.ExtentSize, s.Count * t.ExtentSize, line})
	}
	return lines, nil
}

func (t *tree) segment(l *LV, i int, s *Segment) (dm.Line, error) {
	switch k := s.Kind.(type) {
	case *Striped:
		return t.stripes(l, i, s, k)
	case *Empty:
		if s.Type == "zero" {
			return &zero.Line{}, nil
		}
		return &errortarget.Line{}, nil
	case *Thin:
		return t.thin(k)
	case *Mirror:
		return t.mirror(l, i, s, k)
	case *Cache:
		return t.cache(k)
	case *Writecache:
		return t.writecache(k)
	}
	return nil, fmt.Errorf("%s is of type %s, which is not supported", l.Name, s.Type)
}

func (t *tree) stripes(l *LV, i int, s *Segment, k *Striped) (dm.Line, error) {
	var ps []dm.Place
	for j, p := range places(s) {
		at, err := t.place(l, s, missingName(i, j), p)
		if err != nil {
			return nil, err
		}
		ps = append(ps, at)
	}
	if len(ps) == 1 {
		return &linear.Line{Place: ps[0]}, nil
	}
	return &striped.Line{Chunk: uint32(k.StripeSize), Stripes: ps}, nil
}

// missingName is the layer in place of a part of a segment on a missing disk.
func missingName(segment, part int) string { return fmt.Sprintf("missing_%d_%d", segment, part) }

// place returns the place of a part of a segment. For a missing disk it is an error
// device as long as the whole segment.
func (t *tree) place(l *LV, s *Segment, missing string, p place) (dm.Place, error) {
	pv := t.pvs[p.Name]
	switch {
	case pv == nil:
		device, err := t.layerOf(p.Name)
		return dm.Place{Device: device, Start: p.Start * t.ExtentSize}, err
	case t.Disks[p.Name] != nil:
		device := cmp.Or(t.options.Below[p.Name], t.Disks[p.Name].Name)
		return dm.Place{Device: device, Start: pv.Start + p.Start*t.ExtentSize}, nil
	}
	err := t.add(l, missing, missing, true, func() ([]Line, error) {
		return whole(s.Count*t.ExtentSize, &errortarget.Line{}), nil
	})
	return dm.Place{Device: "/dev/mapper/" + DeviceName(t.Name, l.Name, missing)}, err
}

// origin adds an origin with all its snapshots. Users of the origin already see the
// content of a merging snapshot.
func (t *tree) origin(l *LV) error {
	below, err := t.layerOf(l.Name)
	if err != nil {
		return err
	}
	var line dm.Line = &snapshot.OriginLine{Origin: below}
	for _, cow := range l.snapshots {
		k := cow.snapshot.Segments[0].Kind.(*Snapshot)
		if !k.Merging {
			continue
		}
		if err := t.plain(cow, "cow"); err != nil {
			return err
		}
		s := t.snapshot(below, cow, k)
		if line = &s; !t.options.ReadOnly {
			line = &snapshot.MergeLine{Line: s}
		}
	}
	err = t.add(l, "", "", l.Writable(), func() ([]Line, error) { return whole(t.sectors(l), line), nil })
	for _, cow := range l.snapshots {
		if err == nil {
			err = t.snapshotUser(l, below, cow)
		}
	}
	return err
}

// snapshotUser adds a snapshot. A merging one returns errors until it is gone.
func (t *tree) snapshotUser(origin *LV, below string, cow *LV) error {
	if err := t.plain(cow, "cow"); err != nil {
		return err
	}
	k := cow.snapshot.Segments[0].Kind.(*Snapshot)
	s := t.snapshot(below, cow, k)
	var line dm.Line = &s
	if k.Merging {
		line = &errortarget.Line{}
	}
	return t.add(cow, "", "", cow.Writable(), func() ([]Line, error) { return whole(t.sectors(origin), line), nil })
}

func (t *tree) snapshot(origin string, cow *LV, k *Snapshot) snapshot.Line {
	return snapshot.Line{Origin: origin, COW: "/dev/mapper/" + DeviceName(t.Name, cow.Name, "cow"), Persistent: true, Chunk: k.ChunkSize}
}

// poolUser adds the device by which users see a pool. A pool that never had a volume
// is itself that device.
func (t *tree) poolUser(l *LV, k *ThinPool) error {
	if _, err := t.pool(l); err != nil || k.Transaction == 0 {
		return err
	}
	return t.over(l, "pool", false)
}

// pool adds a pool and returns its name.
func (t *tree) pool(l *LV) (string, error) {
	k := l.Segments[0].Kind.(*ThinPool)
	layer := poolLayer
	if k.Transaction == 0 {
		layer = ""
	}
	line := &thin.PoolLine{
		BlockSectors: k.ChunkSize, SkipZeroing: !k.Zero, IgnoreDiscard: k.Discards == "ignore", NoPassdown: k.Discards == "nopassdown",
		ReadOnly: !l.Writable() || t.options.ReadOnly, ErrorIfNoSpace: l.flag("ERROR_WHEN_FULL"),
	}
	var err error
	if line.Metadata, err = t.layerOf(k.Metadata); err != nil {
		return "", err
	}
	if line.Data, err = t.layerOf(k.Data); err != nil {
		return "", err
	}
	err = t.add(l, layer, poolLayer, true, func() ([]Line, error) { return whole(t.sectors(l), line), nil })
	return "/dev/mapper/" + DeviceName(t.Name, l.Name, layer), err
}

func (t *tree) thin(k *Thin) (dm.Line, error) {
	line := &thin.ThinLine{ID: k.Device}
	var err error
	if k.External != "" {
		if line.Origin, err = t.layerOf(k.External); err != nil {
			return nil, err
		}
	}
	line.Pool, err = t.layerOf(k.Pool)
	return line, err
}
