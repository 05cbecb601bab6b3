package thin

import (
	"strings"

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

	mode mode // to be in force when bound; the owner's from then on
}

// Bounds of the data block size, in sectors; it is a multiple of the smallest.
const (
	minBlock = 64 << 10 / blk.SectorSize
	maxBlock = 1 << 30 / blk.SectorSize
)

func newPoolTarget(t *dm.Target, args []string) (dm.Mapper, error) {
	pt := &poolTarget{t: t, pools: poolsOf(t)}
	pt.pools.mu.Lock()
	defer pt.pools.mu.Unlock()
	blockSectors, err := pt.parse(args)
	if err != nil {
		return nil, err
	}
	p, created, err := pt.pools.get(pt, blockSectors)
	if err != nil {
		return nil, err
	}
	pt.pool = p
	if !created && pt.requested.discard != p.discards.Load() {
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

// parse reads the table's words and opens the devices.
func (pt *poolTarget) parse(args []string) (blockSectors uint64, err error) {
	if len(args) < 4 {
		return 0, invalid("Invalid argument count")
	}
	if args[0] == args[1] {
		return 0, invalid("Error setting metadata or data device")
	}
	if err := pt.parseFeatures(dm.NewArgs(args[4:])); err != nil {
		return 0, err
	}
	if pt.meta, err = pt.t.Open(args[0], !pt.requested.readOnly); err != nil {
		return 0, failed(err, "Error opening metadata block device")
	}
	if pt.data, err = pt.t.Open(args[1], true); err != nil {
		return 0, failed(err, "Error getting data device")
	}
	blockSectors, ok := parseNumber(args[2])
	if !ok || blockSectors < minBlock || blockSectors > maxBlock || blockSectors%minBlock != 0 {
		return 0, invalid("Invalid block size")
	}
	if pt.lowWater, ok = parseNumber(args[3]); !ok {
		return 0, invalid("Invalid low water mark")
	}
	return blockSectors, nil
}

func (pt *poolTarget) parseFeatures(args *dm.Args) error {
	f := &pt.requested
	*f = features{zero: true, discard: true, passdown: true}
	if args.Len() == 0 {
		return nil
	}
	n, err := args.Group(0, 4, "Invalid number of pool feature arguments")
	if err != nil {
		return invalid("Invalid number of pool feature arguments")
	}
	for range n {
		switch strings.ToLower(args.Next()) {
		case "skip_block_zeroing":
			f.zero = false
		case "ignore_discard":
			f.discard = false
		case "no_discard_passdown":
			f.passdown = false
		case "read_only":
			f.readOnly, pt.mode = true, modeReadOnly
		case "error_if_no_space":
			f.errorIfNoSpace = true
		default:
			return invalid("Unrecognised pool feature requested")
		}
	}
	return nil
}

func (pt *poolTarget) Close() {
	pt.pools.mu.Lock()
	defer pt.pools.mu.Unlock()
	pt.pool.call(func() { pt.pool.forget(pt) })
	pt.pools.put(pt.pool)
}

// Map passes everything to the data device: the pool device can be used as that.
func (pt *poolTarget) Map(c *dm.Clone) dm.Outcome {
	c.SetDev(pt.data)
	return dm.Remapped
}

// blocks is the pool's size in data blocks, by this table.
func (pt *poolTarget) blocks() uint64 { return pt.t.Len / pt.pool.blockSectors }

// metadataBlocks is the size of the metadata device, as far as it is used.
func (pt *poolTarget) metadataBlocks() uint64 {
	return min(pt.meta.Limits().Size/pdata.BlockSectors, thinmeta.MaxMetadataBlocks)
}

// metadataThreshold is the number of free metadata blocks that raises an event.
func (pt *poolTarget) metadataThreshold() uint64 { return min(1024, pt.metadataBlocks()/4) }

// passdown is whether discards can be passed to the data device.
func (pt *poolTarget) passdown() bool {
	most := pt.data.Limits().MaxDiscard
	return pt.requested.passdown && most != 0 && most >= pt.pool.blockSectors
}

// Areas is the data device; metadata has no part in the limits.
func (pt *poolTarget) Areas() []dm.Area { return []dm.Area{{Dev: pt.data, Len: pt.t.Len}} }

// Hint makes whole blocks the preferred I/O, unless the data device prefers
// what consists of them.
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
