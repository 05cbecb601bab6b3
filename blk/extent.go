package blk

// Extent is a run of sectors with one allocation state.
//
// Allocation maps are no part of [Device]: a leaf that knows its own (memdev,
// filedev) has a method with the signature of [ExtentsFunc], and whoever serves
// a device is given such a function beside it, or none.
type Extent struct {
	Sector, Sectors uint64
	Data            bool // false: nothing is allocated there and it reads as zeroes
}

// ExtentsFunc lists the extents from sector on, in order and without gaps, at
// least one of them, and together at most sectors long. Neighbours differ in
// Data. The range lies within the device and is not empty.
type ExtentsFunc func(sector, sectors uint64) ([]Extent, error)

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
