package thin

import (
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Contents of a pool, for programs that manage its volumes.

// poolOf returns the pool of a device with a thin-pool table in force.
func poolOf(d *dm.Device) (*pool, error) {
	if t := d.Target(0); t != nil {
		if pt, ok := t.Mapper().(*poolTarget); ok {
			return pt.pool, nil
		}
	}
	return nil, dm.Errorf(syscall.EINVAL, "%s is not a thin pool", d.Name())
}

// Volumes returns the ids of all volumes of a pool, in use or not, in ascending
// order. The caller must keep the pool's table from being replaced meanwhile.
func Volumes(pool *dm.Device) (ids []uint32, err error) {
	p, err := poolOf(pool)
	if err != nil {
		return nil, err
	}
	p.call(func() { ids, err = p.md.IDs() })
	return ids, err
}

// usageStep is how many blocks are counted at a time. The owner serves nothing else
// meanwhile.
const usageStep = 1 << 12

// Usage returns how many bytes of a pool's data belong to one volume alone, and how
// many it shares with others. The result is approximate if the pool changes
// meanwhile. The caller must keep the pool's table from being replaced.
func Usage(pool *dm.Device, id uint32) (own, shared uint64, err error) {
	p, err := poolOf(pool)
	if err != nil {
		return 0, 0, err
	}
	for next, more := uint64(0), true; more && err == nil; {
		p.call(func() {
			var o, s uint64
			o, s, next, more, err = p.md.Count(id, next, usageStep)
			own, shared = own+o, shared+s
		})
	}
	block := p.blockSectors * blk.SectorSize
	return own * block, shared * block, err
}
