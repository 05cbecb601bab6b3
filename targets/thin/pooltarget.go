package thin

import (
	"udm/blk"
	"udm/dm"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// poolTarget is a thin-pool line of a table (struct pool_c).
type poolTarget struct {
	t          *dm.Target
	pools      *pools
	pool       *pool
	meta, data *dm.Dev
	lowWater   uint64
	requested  features

	mode mode // in force once bound; owned by the owner from then on
}

// Bounds of the data block size in sectors; it must be a multiple of the smallest.
const (
	minBlock = 64 << 10 / blk.SectorSize
	maxBlock = 1 << 30 / blk.SectorSize
)

func newPoolTarget(t *dm.Target, args []string) (dm.Mapper, error) {
	l, wrong := ParsePoolLine(args)
	if l == nil {
		return nil, wrong
	}
	pt := &poolTarget{t: t, pools: poolsOf(t)}
	pt.pools.mu.Lock()
	defer pt.pools.mu.Unlock()
	if err := pt.open(l); err != nil {
		return nil, err
	}
	if wrong != nil {
		return nil, wrong
	}
	pt.take(l)
	p, created, err := pt.pools.get(pt, l.BlockSectors)
	if err != nil {
		return nil, err
	}
	pt.pool = p
	if !created && pt.requested.discard != p.published.discards.Load() {
		pt.pools.put(p)
		return nil, invalid("Discard support cannot be disabled once enabled")
	}
	p.call(func() {
		p.targets = append(p.targets, pt)
		p.md.SetLowWatermark(pt.metadataThreshold(), p.metadataLow)
	})
	t.NumFlush, t.NumWriteZeroes = 1, 1
	if pt.requested.discard && pt.requested.passdown {
		t.NumDiscard, t.DiscardsSupported = 1, true
	}
	return pt, nil
}

// open opens the devices of a line.
func (pt *poolTarget) open(l *PoolLine) (err error) {
	if pt.meta, err = pt.t.Open(l.Metadata, !l.ReadOnly); err != nil {
		return failed(err, "Error opening metadata block device")
	}
	if pt.data, err = pt.t.Open(l.Data, true); err != nil {
		return failed(err, "Error getting data device")
	}
	return nil
}

// take stores the line's settings as the requested ones.
func (pt *poolTarget) take(l *PoolLine) {
	pt.lowWater = l.LowWater
	pt.requested = features{zero: !l.SkipZeroing, discard: !l.IgnoreDiscard, passdown: !l.NoPassdown,
		readOnly: l.ReadOnly, errorIfNoSpace: l.ErrorIfNoSpace}
	if l.ReadOnly {
		pt.mode = modeReadOnly
	}
}

func (pt *poolTarget) Close() {
	pt.pools.mu.Lock()
	defer pt.pools.mu.Unlock()
	p := pt.pool
	p.call(func() {
		if p.refs == 1 && p.settings.bound == pt {
			p.deleteAll()
		}
		p.forget(pt)
	})
	pt.pools.put(p)
}

// Map passes all I/O to the data device: the pool device is a linear map of it.
func (pt *poolTarget) Map(c *dm.Clone) dm.Outcome {
	c.SetDev(pt.data)
	return dm.Remapped
}

// blocks is the pool's size in data blocks according to this table.
func (pt *poolTarget) blocks() uint64 { return pt.t.Len / pt.pool.blockSectors }

// metadataBlocks is the usable size of the metadata device in 4 KiB blocks.
func (pt *poolTarget) metadataBlocks() uint64 {
	return min(pt.meta.Limits().Size/pdata.BlockSectors, thinmeta.MaxMetadataBlocks)
}

// metadataThreshold is the number of free metadata blocks at which an event is
// raised.
func (pt *poolTarget) metadataThreshold() uint64 { return min(1024, pt.metadataBlocks()/4) }

// passdown reports whether the data device supports discards of the pool's blocks.
func (pt *poolTarget) passdown() bool {
	most := pt.data.Limits().MaxDiscard
	return pt.requested.passdown && most != 0 && most >= pt.pool.blockSectors
}

// Areas is the data device only; the metadata device does not affect the limits.
func (pt *poolTarget) Areas() []dm.Area { return []dm.Area{{Dev: pt.data, Len: pt.t.Len}} }

// Hint makes whole blocks the preferred I/O size, unless the data device prefers a
// multiple of them.
func (pt *poolTarget) Hint(l *blk.Limits) {
	bs := uint32(pt.pool.blockSectors * blk.SectorSize)
	if l.OptIO < bs || l.OptIO%bs != 0 {
		l.MinIO = max(bs, l.PhysicalBlock)
		l.OptIO = bs
	}
	switch {
	case !pt.requested.discard:
		l.DiscardGranularity = 0
	case !pt.passdown():
		l.MaxDiscard = 0
	}
}
