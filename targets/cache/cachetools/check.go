package cachetools

import (
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/cache/cachemeta"
)

// maxDamage is how many damages a report lists; the others are only counted.
const maxDamage = 1000

// CheckOptions control Check.
type CheckOptions struct {
	SuperOnly    bool // check the superblock only
	SkipMappings bool
	SkipHints    bool
	SkipDiscards bool
}

func (o CheckOptions) skips() bool { return o.SkipMappings || o.SkipHints || o.SkipDiscards }

// Damage is one fault in the metadata.
type Damage struct {
	Fatal bool // false for a leaked block or an underfull node
	Err   error
}

// Report is what Check found.
type Report struct {
	Super    cachemeta.Super
	Mapped   uint64   // blocks of the cache that are in use
	Dirty    uint64   // those that are dirty; all of them after an unclean shutdown
	Damages  []Damage // the first 1000
	Fatal    int      // number of fatal damages
	NonFatal int      // number of the others
	Leaked   []uint64 // metadata blocks that are counted once but not used
}

// Err returns nil if the metadata is sound.
func (r *Report) Err() error {
	if r.Fatal+r.NonFatal == 0 {
		return nil
	}
	return fmt.Errorf("%w (%d faults in all)", r.Damages[0].Err, r.Fatal+r.NonFatal)
}

func (r *Report) add(fatal bool, err error) {
	if fatal {
		r.Fatal++
	} else {
		r.NonFatal++
	}
	if len(r.Damages) < maxDamage {
		r.Damages = append(r.Damages, Damage{fatal, err})
	}
}

// Check checks the metadata on dev. The error says that dev could not be read; damage is
// in the Report.
func Check(e env.Env, dev blk.Device, o CheckOptions) (*Report, error) {
	c := &checker{r: &Report{}, o: o, bm: pdata.NewBlockManager(e, dev, 0)}
	c.blocks = pdata.NewChecker(c.bm, func(d *pdata.Corrupt) { c.r.add(true, d) })
	var raw [pdata.BlockSize]byte
	if err := c.bm.ReadRaw(cachemeta.SuperBlock, raw[:]); err != nil {
		return nil, err
	}
	if reason := cachemeta.KindSuper.Verify(raw[:], cachemeta.SuperBlock); reason != "" {
		c.bad("superblock", cachemeta.SuperBlock, "%s", reason)
		return c.r, nil
	}
	c.r.Super.Decode(raw[:])
	if c.checkSuper(); !o.SuperOnly && c.r.Fatal == 0 {
		c.check()
	}
	return c.r, nil
}

type checker struct {
	r      *Report
	o      CheckOptions
	bm     *pdata.BlockManager
	blocks *pdata.Checker
}

func (c *checker) bad(tree string, nr uint64, format string, args ...any) {
	c.r.add(true, &pdata.Corrupt{Block: nr, Path: []uint64{nr}, Tree: tree, Reason: fmt.Sprintf(format, args...)})
}

// checkSuper checks the superblock's own fields.
func (c *checker) checkSuper() {
	s := &c.r.Super
	bad := func(format string, args ...any) { c.bad("superblock", cachemeta.SuperBlock, format, args...) }
	if s.Version < 1 || s.Version > 2 {
		bad("version is %d", s.Version)
	}
	if s.MetadataBlockSize != pdata.BlockSectors {
		bad("metadata block size is %d sectors", s.MetadataBlockSize)
	}
	if s.HintSize != 0 && s.HintSize != 4 {
		bad("hints have %d bytes", s.HintSize)
	}
	if s.Incompat != 0 {
		bad("incompatible features %#x", s.Incompat)
	}
	if n := c.bm.Blocks(); s.Metadata.Blocks > n {
		bad("metadata space map has %d blocks, the device %d", s.Metadata.Blocks, n)
	}
}

func (c *checker) check() {
	s := &c.r.Super
	c.blocks.Refs.Add(cachemeta.SuperBlock, 1)
	if !c.o.SkipMappings && c.array("mapping array", s.Mappings, 8, uint64(s.CacheBlocks)) {
		whole := s.Version < 2 || c.array("dirty bitset", s.DirtyRoot, 8, words(uint64(s.CacheBlocks)))
		if whole {
			c.mappings()
		}
	}
	if s.Hints != 0 && !c.o.SkipHints {
		// A cache that was resized and not closed in order has the hints of its old size.
		c.blocks.Array("hint array", s.Hints, 4)
	}
	if s.Discards != 0 && !c.o.SkipDiscards {
		c.array("discard bitset", s.Discards, 8, words(s.DiscardBlocks))
	}
	if c.r.Fatal == 0 && !c.o.skips() {
		c.spaceMap()
	}
}

func words(bits uint64) uint64 { return (bits + 63) / 64 }

func (c *checker) array(name string, root uint64, size int, want uint64) bool {
	n, ok := c.blocks.Array(name, root, size)
	if ok && n != want {
		c.bad(name, root, "array has %d values, want %d", n, want)
		return false
	}
	return ok
}

// mappings checks that no block of the origin is in the cache twice.
func (c *checker) mappings() {
	seen := map[uint64]uint32{}
	err := blocksOf(c.bm, &c.r.Super, nil, func(b Block) error {
		c.r.Mapped++
		if b.Dirty || !c.r.Super.Clean() {
			c.r.Dirty++
		}
		if other, twice := seen[b.OBlock]; twice {
			c.bad("mapping array", c.r.Super.Mappings, "block %d of the origin is in blocks %d and %d of the cache", b.OBlock, other, b.CBlock)
		}
		seen[b.OBlock] = b.CBlock
		return nil
	})
	if err != nil {
		c.r.add(true, err)
	}
}

// spaceMap compares the reference counts on the disk with those found.
func (c *checker) spaceMap() {
	v := c.blocks.Map("metadata space map", c.r.Super.Metadata, true)
	if c.r.Fatal > 0 {
		return
	}
	v.Compare(c.blocks.Refs, func(bitmap, nr uint64, have, want uint32) {
		if want == 0 && have == 1 {
			c.r.Leaked = append(c.r.Leaked, nr)
		}
		c.r.add(have < want, &pdata.Corrupt{Block: bitmap, Path: []uint64{v.Root.BitmapRoot, bitmap}, Tree: "metadata space map",
			Reason: fmt.Sprintf("block %d is counted %d times, used %d times", nr, have, want)})
	})
}

// ClearNeedsCheck clears the needs_check flag of metadata that is sound.
func ClearNeedsCheck(e env.Env, dev blk.Device) error {
	r, err := Check(e, dev, CheckOptions{})
	if err == nil {
		err = r.Err()
	}
	if err != nil || !r.Super.NeedsCheck() {
		return err
	}
	m, err := cachemeta.Open(e, dev, cachemeta.Options{})
	if err != nil {
		return err
	}
	if err := m.ClearNeedsCheck(); err != nil {
		return err
	}
	return m.Commit()
}
