package snapshot

import (
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Exceptions tells which sectors of a device with a snapshot table, from one sector
// on, have a place in the COW device (Data) and which are read from the origin: what
// was written to the snapshot, and of what was written to its origin what it had
// before. A write that has ended is told of. The list covers at most so many
// sectors, and at least some. The caller keeps the table from being replaced
// meanwhile. EINVAL: it is no snapshot, merges, or has lost what it held.
func Exceptions(d *dm.Device, sector, sectors uint64) ([]blk.Extent, error) {
	s := snapshotOf(d)
	if s == nil {
		return nil, dm.Errorf(syscall.EINVAL, "%s is no snapshot that stays one", d.Name())
	}
	list := s.exceptions(s.body.Load(), sector, sectors)
	if s.flags.Load()&(flagValid|flagWaiting) != flagValid {
		return nil, dm.Errorf(syscall.EINVAL, "what %s held is lost", d.Name())
	}
	return list, nil
}

func snapshotOf(d *dm.Device) *snapshot {
	if t := d.Target(0); t != nil {
		if s, ok := t.Mapper().(*snapshot); ok {
			return s
		}
	}
	return nil
}
