package striped

import (
	"udm/blk"
	"udm/targets/internal/leg"
)

const maxExtents = 1024

// Extents puts those of the stripes together.
func (s *striped) Extents(offset, sectors uint64) (list []blk.Extent) {
	cs := make([]leg.Cursor, len(s.stripes))
	for i := range cs {
		cs[i] = s.stripes[i].Cursor()
	}
	for end := offset + sectors; offset < end && len(list) < maxExtents; {
		data, n := s.alike(cs, offset, end)
		n = min(n, end-offset)
		list = blk.AppendExtent(list, blk.Extent{Sector: offset, Sectors: n, Data: data})
		offset += n
	}
	return list
}

// alike tells about the sectors at off: as many rows as are the same on all
// stripes, or a part of one chunk.
func (s *striped) alike(cs []leg.Cursor, off, end uint64) (data bool, sectors uint64) {
	i, sector := s.place(off)
	data, n := cs[i].At(sector, s.edge(end, i)-sector)
	if i == 0 && off%s.chunk == 0 {
		if rows := s.rowsAlike(cs, sector, end, data, n/s.chunk); rows > 0 {
			return data, rows * s.chunk * uint64(len(cs))
		}
	}
	return data, min(n, s.chunk-off%s.chunk)
}

// rowsAlike is how many of rows, which begin at a sector of every stripe and are
// alike on the first, are so on the others.
func (s *striped) rowsAlike(cs []leg.Cursor, sector, end uint64, data bool, rows uint64) uint64 {
	for i := uint64(1); i < uint64(len(cs)) && rows > 0; i++ {
		edge := s.edge(end, i)
		if edge == sector {
			return 0 // the last row ends before it
		}
		d, n := cs[i].At(sector, edge-sector)
		if d != data {
			return 0
		}
		rows = min(rows, n/s.chunk)
	}
	return rows
}
