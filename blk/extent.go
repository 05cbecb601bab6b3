package blk

// Extent is a run of sectors with one allocation state.
//
// Allocation maps are not part of [Device]. A device with a map (memdev, filedev, a
// mapped device) is also an [ExtentsDevice]; servers get an [ExtentsFunc] or none
// together with a device. A wrapper passes on the map of the device below (tested by
// blktest.PassesExtents).
type Extent struct {
	Sector, Sectors uint64
	Data            bool // false: reads as zeroes, and most likely takes no space
}

// ExtentsFunc lists the extents from sector on, in order and without gaps: at least
// one, and at most sectors sectors in total. Neighbours differ in Data. The range
// must lie within the device and not be empty.
//
// A hole is a promise: its sectors read as zeroes at some moment between call and
// return, so a write that ended before the call is seen. Unknown sectors are data.
// The function may block; the work of one call is bounded.
type ExtentsFunc func(sector, sectors uint64) ([]Extent, error)

// ExtentsDevice is a device with an allocation map: Extents is an [ExtentsFunc].
type ExtentsDevice interface {
	Extents(sector, sectors uint64) ([]Extent, error)
}

// ExtentsOf returns the allocation map of d. Without a map, or if it cannot be read,
// everything is data; so is everything beyond the end of d.
func ExtentsOf(d Device, sector, sectors uint64) []Extent {
	if x, ok := d.(ExtentsDevice); ok && sector < d.Limits().Size {
		list, err := x.Extents(sector, min(sectors, d.Limits().Size-sector))
		if err == nil && len(list) > 0 {
			return list
		}
	}
	return AllData(sector, sectors)
}

// AllData returns a map in which everything is data.
func AllData(sector, sectors uint64) []Extent {
	return []Extent{{Sector: sector, Sectors: sectors, Data: true}}
}

// AppendExtent adds e to the end of list, merging it with the last extent if both are
// of one kind. Empty extents are dropped.
func AppendExtent(list []Extent, e Extent) []Extent {
	if e.Sectors == 0 {
		return list
	}
	if n := len(list); n > 0 && list[n-1].Data == e.Data {
		list[n-1].Sectors += e.Sectors
		return list
	}
	return append(list, e)
}

// SumExtents returns the total length of a list in sectors.
func SumExtents(list []Extent) (sectors uint64) {
	for _, e := range list {
		sectors += e.Sectors
	}
	return sectors
}

// EitherExtents returns data where either of two lists has data, as far as both go.
// The lists must begin at the same sector; they are consumed.
func EitherExtents(a, b []Extent) (list []Extent) {
	for len(a) > 0 && len(b) > 0 {
		n := min(a[0].Sectors, b[0].Sectors)
		list = AppendExtent(list, Extent{Sector: a[0].Sector, Sectors: n, Data: a[0].Data || b[0].Data})
		a, b = behind(a, n), behind(b, n)
	}
	return list
}

// behind removes the first n sectors of a list.
func behind(list []Extent, n uint64) []Extent {
	e := &list[0]
	if e.Sectors == n {
		return list[1:]
	}
	e.Sector, e.Sectors = e.Sector+n, e.Sectors-n
	return list
}
