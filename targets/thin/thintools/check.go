package thintools

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// CheckOptions control Check and Mend.
type CheckOptions struct {
	SuperOnly      bool                     // check the superblock only
	SkipMappings   bool                     // check superblock and devices, but not mappings and space maps
	IgnoreNonFatal bool                     // leaks and underfull nodes are not errors
	MetadataSnap   bool                     // check the metadata snapshot instead
	MappingRoot    uint64                   // root to check instead of the superblock's; 0: the superblock's
	CacheBytes     int                      // 0: 64 MiB
	Progress       func(done, total uint64) // metadata blocks checked; may be nil
}

// Check checks all metadata on dev, which nobody may have open for writing. It finds
// what thin_check finds. The error says that dev could not be read; damage is in the
// Report.
func Check(e env.Env, dev blk.Device, o CheckOptions) (*Report, error) {
	c := &checker{r: &Report{Devices: map[uint32]thinmeta.Details{}}, o: o, data: pdata.NewRefCounts()}
	c.bm = pdata.NewBlockManager(e, dev, o.CacheBytes)
	c.blocks = pdata.NewChecker(c.bm, func(d *pdata.Corrupt) { c.r.add(true, d) })
	c.blocks.Lax, c.blocks.Seen = o.IgnoreNonFatal, c.seen
	var raw [pdata.BlockSize]byte
	if err := c.bm.ReadRaw(thinmeta.SuperBlock, raw[:]); err != nil {
		return nil, err
	}
	if reason := thinmeta.KindSuper.Verify(raw[:], thinmeta.SuperBlock); reason != "" {
		c.r.add(true, &pdata.Corrupt{Block: thinmeta.SuperBlock, Path: []uint64{thinmeta.SuperBlock}, Reason: reason})
		return c.r, nil
	}
	c.r.Super.Decode(raw[:])
	c.check()
	return c.r, nil
}

type checker struct {
	r      *Report
	o      CheckOptions
	bm     *pdata.BlockManager
	blocks *pdata.Checker
	data   *pdata.RefCounts
	done   uint64
}

func (c *checker) seen() {
	if c.done++; c.o.Progress != nil && c.done%256 == 0 {
		s := &c.r.Super.Metadata
		c.o.Progress(min(c.done, s.Allocated), s.Allocated)
	}
}

func (c *checker) check() {
	s := &c.r.Super
	c.checkSuper()
	if c.o.SuperOnly || c.r.Fatal > 0 {
		return
	}
	c.blocks.Refs.Add(thinmeta.SuperBlock, 1)
	main := *s
	if c.o.MappingRoot != 0 {
		main.MappingRoot = c.o.MappingRoot
	}
	if !c.o.MetadataSnap {
		c.devices("", &main, c.r.Devices)
	}
	if s.HeldRoot != 0 {
		c.held(s.HeldRoot)
	} else if c.o.MetadataSnap {
		c.r.add(true, fmt.Errorf("no current metadata snapshot"))
	}
	if c.o.SkipMappings || c.o.MetadataSnap {
		return
	}
	c.spaceMaps(s)
}

// checkSuper checks the superblock's own fields.
func (c *checker) checkSuper() {
	s := &c.r.Super
	bad := func(format string, args ...any) {
		c.r.add(true, &pdata.Corrupt{Block: thinmeta.SuperBlock, Path: []uint64{thinmeta.SuperBlock}, Tree: "superblock", Reason: fmt.Sprintf(format, args...)})
	}
	if s.Version == 0 || s.Version > thinmeta.SuperVersion {
		bad("version is %d", s.Version)
	}
	if s.MetadataBlockSize != pdata.BlockSectors {
		bad("metadata block size is %d sectors", s.MetadataBlockSize)
	}
	if n := c.bm.Blocks(); s.Metadata.Blocks > n {
		bad("metadata space map has %d blocks, the device %d", s.Metadata.Blocks, n)
	}
	c.r.FreeMetadata = s.Metadata.Blocks - min(s.Metadata.Blocks, s.Metadata.Allocated)
}

// held checks the metadata snapshot.
func (c *checker) held(nr uint64) {
	c.blocks.Refs.Add(nr, 1)
	s, err := thinmeta.ReadSuperAt(c.bm, nr)
	if err != nil {
		c.r.add(true, pdata.In("metadata snapshot", err))
		return
	}
	s.Data.Blocks = c.r.Super.Data.Blocks
	c.devices("metadata snapshot/", s, map[uint32]thinmeta.Details{})
}

// devices checks the devices of a superblock and their mappings.
func (c *checker) devices(name string, s *thinmeta.Super, devs map[uint32]thinmeta.Details) {
	_, whole := c.blocks.Tree(name+"device details", s.DetailsRoot, thinmeta.DetailsSize, nil)
	if whole {
		c.eachEntry(s.DetailsRoot, thinmeta.DetailsSize, func(k uint64, v []byte) { devs[uint32(k)] = thinmeta.DetailsCodec.Get(v) })
	}
	// A leaf adds references to its values only the first time it is visited; the
	// metadata snapshot may share leaves with the pool.
	_, ok := c.blocks.Tree(name+"device tree", s.MappingRoot, 8, func(l pdata.Leaf) { c.mappings(name, s, l) })
	if !ok || !whole {
		return
	}
	roots := map[uint32]uint64{}
	c.eachEntry(s.MappingRoot, 8, func(k uint64, v []byte) { roots[uint32(k)] = le.Uint64(v) })
	for _, id := range slices.Sorted(maps.Keys(roots)) {
		c.device(deviceName(name, uint64(id)), id, roots[id], devs)
	}
	for _, id := range slices.Sorted(maps.Keys(devs)) {
		if _, ok := roots[id]; !ok {
			c.bad(name+"device tree", s.MappingRoot, "device %d has details but no mappings", id)
		}
	}
}

func deviceName(name string, id uint64) string { return name + "device " + strconv.FormatUint(id, 10) }

// mappings walks the mappings of the devices in a leaf of the device tree.
func (c *checker) mappings(name string, s *thinmeta.Super, l pdata.Leaf) {
	for i := range l.Len() {
		if c.o.SkipMappings {
			continue
		}
		name := deviceName(name, l.Key(i))
		c.blocks.Tree(name, le.Uint64(l.Value(i)), 8, func(l pdata.Leaf) { c.leaf(name, s, l) })
	}
}

// eachEntry walks a tree that is known to be undamaged.
func (c *checker) eachEntry(root uint64, size int, fn func(k uint64, v []byte)) {
	err := pdata.WalkLeaves(c.bm, root, size, nil, func(l pdata.Leaf) error {
		for i := range l.Len() {
			fn(l.Key(i), l.Value(i))
		}
		return nil
	})
	if err != nil {
		c.r.add(true, err)
	}
}

func (c *checker) bad(tree string, nr uint64, format string, args ...any) {
	c.r.add(true, &pdata.Corrupt{Block: nr, Path: []uint64{nr}, Tree: tree, Reason: fmt.Sprintf(format, args...)})
}

func (c *checker) device(name string, id uint32, root uint64, devs map[uint32]thinmeta.Details) {
	d, known := devs[id]
	if !known {
		c.bad(name, root, "device has mappings but no details")
	}
	if n, ok := c.blocks.Entries(root); ok && known && !c.o.SkipMappings && n != d.Mapped {
		c.bad(name, root, "device maps %d blocks, its details say %d", n, d.Mapped)
	}
}

func (c *checker) leaf(name string, s *thinmeta.Super, l pdata.Leaf) {
	for i := range l.Len() {
		bt := thinmeta.BlockTimeOf(le.Uint64(l.Value(i)))
		if bt.Block >= s.Data.Blocks {
			c.bad(name, l.Nr(), "block %d is mapped to data block %d of %d", l.Key(i), bt.Block, s.Data.Blocks)
			continue
		}
		c.data.Add(bt.Block, 1)
	}
}

// spaceMaps compares the reference counts on the disk with those found. If damage hid
// mappings, the comparison would be meaningless.
func (c *checker) spaceMaps(s *thinmeta.Super) {
	broken := c.r.Fatal > 0
	data := c.blocks.Map("data space map", s.Data, false)
	meta := c.blocks.Map("metadata space map", s.Metadata, true)
	if broken || c.r.Fatal > 0 {
		return
	}
	c.compare("data", data, c.data, &c.r.Leaked.Data)
	c.compare("metadata", meta, c.blocks.Refs, &c.r.Leaked.Metadata)
}

func (c *checker) compare(what string, v *pdata.MapView, want *pdata.RefCounts, leaked *[]uint64) {
	v.Compare(want, func(bitmap, nr uint64, have, want uint32) {
		leak := have > want
		if leak && c.o.IgnoreNonFatal {
			return
		}
		if want == 0 && have == 1 {
			*leaked = append(*leaked, nr)
		}
		c.r.add(!leak, &pdata.Corrupt{Block: bitmap, Path: []uint64{v.Root.BitmapRoot, bitmap}, Tree: what + " space map",
			Reason: fmt.Sprintf("%s block %d is counted %d times, used %d times", what, nr, have, want)})
	})
}
