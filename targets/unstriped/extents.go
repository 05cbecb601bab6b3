package unstriped

import "udm/blk"

// Bounds of what one call lists and looks at.
const maxExtents, maxSteps = 1024, 1 << 14

// Extents picks the stripe's own out of those of the device.
func (u *unstriped) Extents(offset, sectors uint64) (list []blk.Extent) {
	c := u.leg.Cursor()
	end := offset + sectors
	for steps := 0; offset < end && len(list) < maxExtents && steps < maxSteps; steps++ {
		at := u.place(u.begin + offset)
		data, n := c.At(at, u.place(u.begin+end-1)+1-at)
		in := (u.begin + offset) % u.chunk
		if row := u.chunk * uint64(u.stripes); in == 0 && n > row {
			n = n / row * u.chunk // so many chunks of every stripe are alike
		} else {
			n = min(n, u.chunk-in)
		}
		n = min(n, end-offset)
		list = blk.AppendExtent(list, blk.Extent{Sector: offset, Sectors: n, Data: data})
		offset += n
	}
	return list
}
