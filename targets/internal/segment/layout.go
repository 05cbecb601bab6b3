package segment

import "udm/blk"

// Bounds of one call: extents listed, and runs looked at.
const maxExtents, maxRuns = 1024, 1 << 14

// Layout says how a target that uses more than one run of sectors maps its own
// sectors to them.
//
// A layout repeats if Row is not 0: Row sectors further in the target is Advance
// sectors further in the same segment. Rows that are alike are then handled in one
// step, however many there are.
type Layout struct {
	// Run returns where the sector at an offset of the target lies, and how many
	// sectors from there on are consecutive below, at least one. Higher offsets of
	// one segment must lie at higher sectors.
	Run          func(offset uint64) (s *Segment, sector, sectors uint64)
	Row, Advance uint64 // sectors
}

// Extents is the target's allocation map as [dm.ExtentsHook] defines it.
func (l Layout) Extents(offset, sectors uint64) (list []blk.Extent) {
	w := walk{layout: l, end: offset + sectors, cursors: make(map[*Segment]*cursor)}
	for offset < w.end && w.runs < maxRuns && len(list) < maxExtents {
		data, n := w.alike(offset)
		list = blk.AppendExtent(list, blk.Extent{Sector: offset, Sectors: n, Data: data})
		offset += n
	}
	return list
}

// walk goes through a layout, from lower offsets to higher ones.
type walk struct {
	layout  Layout
	end     uint64 // offset
	cursors map[*Segment]*cursor
	runs    int // how many have been looked at
}

// alike reports what the sector at an offset holds, and how many sectors, at
// least one, hold the same. When it has gone through a whole row, it goes on to
// the last row that is alike in all of the row's runs.
func (w *walk) alike(offset uint64) (data bool, sectors uint64) {
	row := w.end
	if w.layout.Row != 0 {
		row = min(row, offset+w.layout.Row)
	}
	rows := (w.end - offset) / max(1, w.layout.Row)
	at := offset
	for at < row && w.runs < maxRuns {
		d, run, n := w.look(at)
		run = min(run, row-at)
		switch {
		case at > offset && d != data:
			return data, at - offset
		case n < run:
			return d, at + n - offset
		case w.layout.Row != 0:
			rows = min(rows, 1+(n-run)/w.layout.Advance)
		}
		data, at = d, at+run
	}
	if at == offset+w.layout.Row {
		return data, rows * w.layout.Row
	}
	return data, at - offset
}

// look reports what the run at an offset begins with, the length of the run, and
// for how many sectors of the segment, at least one, the same is known.
func (w *walk) look(at uint64) (data bool, run, known uint64) {
	s, sector, run := w.layout.Run(at)
	run = min(run, w.end-at)
	w.runs++
	c := w.cursors[s]
	if c == nil {
		c = &cursor{segment: s}
		w.cursors[s] = c
	}
	most := w.end - at
	if w.layout.Row != 0 {
		most = run + (most-1)/w.layout.Row*w.layout.Advance
	}
	data, known = c.at(sector, most)
	return data, run, known
}

// cursor moves forward through the allocation map of a segment.
type cursor struct {
	segment *Segment
	list    []blk.Extent // fetched from the device and not passed yet
}

// at reports whether a sector of the segment, not lower than the last one, holds
// data, and for how many sectors, at least one, this is known. If the device has
// to be asked, it is asked about most sectors.
func (c *cursor) at(sector, most uint64) (data bool, sectors uint64) {
	for len(c.list) > 0 && c.list[0].Sector+c.list[0].Sectors <= sector {
		c.list = c.list[1:]
	}
	if len(c.list) == 0 {
		c.list = c.segment.Extents(sector, most)
	}
	e := c.list[0]
	return e.Data, e.Sector + e.Sectors - sector
}
