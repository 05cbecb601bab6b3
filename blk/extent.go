package blk

// Extent is a run of sectors with one allocation state.
//
// Allocation maps are no part of [Device]: one that knows its own (memdev,
// filedev, a mapped device) is an [ExtentsDevice] as well, and whoever serves a device
// is given an [ExtentsFunc] beside it, or none. A wrapper passes on the map of the
// device below (tested by blktest.PassesExtents).
type Extent struct {
	Sector, Sectors uint64
	Data            bool // false: it reads as zeroes, and most likely takes no space
}

// ExtentsFunc lists the extents from sector on, in order and without gaps, at
// least one of them, and together at most sectors long. Neighbours differ in
// Data. The range lies within the device and is not empty.
//
// A hole is a promise: the sectors read as zeroes at some moment between call
// and return, so a write that ended before the call is seen. What is not known
// is data. It may block; how much one call looks at is bounded.
type ExtentsFunc func(sector, sectors uint64) ([]Extent, error)

// ExtentsDevice is a device with an allocation map: Extents is an [ExtentsFunc].
type ExtentsDevice interface {
	Extents(sector, sectors uint64) ([]Extent, error)
}

// ExtentsOf asks d for its allocation map. A device without one, and one whose
// map cannot be read, is data; so is what lies beyond its end.
func ExtentsOf(d Device, sector, sectors uint64) []Extent {
	if x, ok := d.(ExtentsDevice); ok && sector < d.Limits().Size {
		list, err := x.Extents(sector, min(sectors, d.Limits().Size-sector))
		if err == nil && len(list) > 0 {
			return list
		}
	}
	return AllData(sector, sectors)
}

// AllData is the map that knows nothing.
func AllData(sector, sectors uint64) []Extent {
	return []Extent{{Sector: sector, Sectors: sectors, Data: true}}
}

// AppendExtent adds e to the end of list, joining it to the last one when both
// are of the same kind. Empty extents are dropped.
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

// SumExtents is how many sectors a list is long.
func SumExtents(list []Extent) (sectors uint64) {
	for _, e := range list {
		sectors += e.Sectors
	}
	return sectors
}

// EitherExtents has data where one of two lists has, as far as both go. They begin at
// the same sector, and are used up.
func EitherExtents(a, b []Extent) (list []Extent) {
	for len(a) > 0 && len(b) > 0 {
		n := min(a[0].Sectors, b[0].Sectors)
		list = AppendExtent(list, Extent{Sector: a[0].Sector, Sectors: n, Data: a[0].Data || b[0].Data})
		a, b = behind(a, n), behind(b, n)
	}
	return list
}

// behind takes n sectors of the first extent away.
func behind(list []Extent, n uint64) []Extent {
	e := &list[0]
	if e.Sectors == n {
		return list[1:]
	}
	e.Sector, e.Sectors = e.Sector+n, e.Sectors-n
	return list
}
