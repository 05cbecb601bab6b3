package era

import (
	"math"
	"strconv"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// eraOf returns the era target of a device whose table in force is one.
func eraOf(d *dm.Device) (*era, error) {
	if t := d.Target(0); t != nil {
		if e, ok := t.Mapper().(*era); ok {
			return e, nil
		}
	}
	return nil, dm.Errorf(syscall.EINVAL, "%s is not an era device", d.Name())
}

// Era is the running era of a device. It is not known once the metadata have failed: a
// new one may have begun on the disk, while writes go on in the last one. The caller must
// keep the device's table from being replaced meanwhile.
func Era(d *dm.Device) (n uint32, err error) {
	e, err := eraOf(d)
	if err == nil {
		e.call(func() {
			if e.md.Failed() {
				err = dm.Errorf(syscall.EIO, "the metadata of %s have failed; load its table again", d.Name())
				return
			}
			n = e.md.Era()
		})
	}
	return n, err
}

// ParseEra understands the number of an era.
func ParseEra(word string) (uint32, bool) {
	n, err := strconv.ParseUint(word, 10, 32)
	return uint32(n), err == nil && strconv.FormatUint(n, 10) == word
}

// portion is how many blocks are looked at at a time. The owner serves nothing else
// meanwhile.
const portion = 1 << 12

// WrittenSince tells which sectors of a device were written in era since or later, in
// whole blocks: of a range, which must not be empty, or of its beginning. end is where to
// go on. A write that has ended is told of, one under way perhaps. The caller must keep
// the device's table from being replaced meanwhile.
func WrittenSince(d *dm.Device, since uint32, sector, sectors uint64) (list []blk.Extent, end uint64, err error) {
	e, err := eraOf(d)
	if err != nil {
		return nil, 0, err
	}
	first, last := sector/e.block, min((sector+sectors+e.block-1)/e.block, uint64(e.blocks))
	last = min(last, first+portion)
	if first >= last || last > math.MaxUint32 {
		return nil, 0, dm.Errorf(syscall.EINVAL, "sector %d is behind the end of %s", sector, d.Name())
	}
	var words []uint64
	e.call(func() {
		err = e.change(func() (_ bool, err error) {
			words, err = e.md.Written(since, uint32(first), uint32(last))
			return false, err
		})
	})
	if err != nil {
		return nil, 0, reply(err)
	}
	end = min(last*e.block, sector+sectors)
	for b := first; b < last; b++ {
		from := max(b*e.block, sector)
		x := blk.Extent{Sector: from, Sectors: min((b+1)*e.block, end) - from, Data: words[(b-first)/64]>>((b-first)%64)&1 != 0}
		list = blk.AppendExtent(list, x)
	}
	return list, end, nil
}
