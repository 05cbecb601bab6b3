package eratools

import (
	"fmt"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/era/erameta"
)

// maxDamage is how many damages a report lists; the others are only counted.
const maxDamage = 1000

// Damage is one fault in the metadata.
type Damage struct {
	Fatal bool // false for a leaked block or an underfull node
	Err   error
}

// Report is what Check found.
type Report struct {
	Super     erameta.Super
	Writesets int      // archived ones, and the running era's
	Damages   []Damage // the first 1000
	Fatal     int      // number of fatal damages
	NonFatal  int      // number of the others
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

// Check checks all metadata on dev, or only the superblock. The error says that dev could
// not be read; damage is in the Report.
func Check(e env.Env, dev blk.Device, superOnly bool) (*Report, error) {
	c := &checker{r: &Report{}, bm: pdata.NewBlockManager(e, dev, 0)}
	c.blocks = pdata.NewChecker(c.bm, func(d *pdata.Corrupt) { c.r.add(true, d) })
	var raw [pdata.BlockSize]byte
	if err := c.bm.ReadRaw(erameta.SuperBlock, raw[:]); err != nil {
		return nil, err
	}
	if reason := erameta.KindSuper.Verify(raw[:], erameta.SuperBlock); reason != "" {
		c.bad("superblock", erameta.SuperBlock, "%s", reason)
		return c.r, nil
	}
	c.r.Super.Decode(raw[:])
	if c.checkSuper(); !superOnly && c.r.Fatal == 0 {
		c.check()
	}
	return c.r, nil
}

type checker struct {
	r      *Report
	bm     *pdata.BlockManager
	blocks *pdata.Checker
}

func (c *checker) bad(tree string, nr uint64, format string, args ...any) {
	c.r.add(true, &pdata.Corrupt{Block: nr, Path: []uint64{nr}, Tree: tree, Reason: fmt.Sprintf(format, args...)})
}

// checkSuper checks the superblock's own fields.
func (c *checker) checkSuper() {
	s := &c.r.Super
	bad := func(format string, args ...any) { c.bad("superblock", erameta.SuperBlock, format, args...) }
	if s.Version != erameta.SuperVersion {
		bad("version is %d", s.Version)
	}
	if s.MetadataBlockSize != pdata.BlockSectors {
		bad("metadata block size is %d sectors", s.MetadataBlockSize)
	}
	if n := c.bm.Blocks(); s.Metadata.Blocks > n {
		bad("metadata space map has %d blocks, the device %d", s.Metadata.Blocks, n)
	}
}

func (c *checker) check() {
	s := &c.r.Super
	c.blocks.Refs.Add(erameta.SuperBlock, 1)
	c.trees("", s)
	if s.Current.Root != 0 {
		c.writeset("", uint64(s.Era), s.Current)
	}
	if s.Held != 0 {
		c.held(s.Held)
	}
	if c.r.Fatal == 0 {
		c.spaceMap()
	}
}

// trees checks what a superblock and a metadata snapshot have in common.
func (c *checker) trees(name string, s *erameta.Super) {
	_, whole := c.blocks.Tree(name+"writesets", s.Sets, erameta.WritesetCodec.Size, func(l pdata.Leaf) {
		for i := range l.Len() {
			c.archived(name, s, l, i)
		}
	})
	n, ok := c.blocks.Array(name+"era array", s.Eras, 4)
	if ok && n != uint64(s.Blocks) {
		c.bad(name+"era array", s.Eras, "array has %d values, the device %d blocks", n, s.Blocks)
	}
	if whole && ok {
		c.eras(name, s)
	}
}

func (c *checker) archived(name string, s *erameta.Super, l pdata.Leaf, i int) {
	era := l.Key(i)
	if era > uint64(s.Era) || era == uint64(s.Era) && s.Current.Root != 0 {
		c.bad(name+"writesets", l.Nr(), "era %d has ended, and the running one is %d", era, s.Era)
	}
	c.writeset(name, era, erameta.WritesetCodec.Get(l.Value(i)))
}

func (c *checker) writeset(name string, era uint64, w erameta.Writeset) {
	name = fmt.Sprintf("%swriteset of era %d", name, era)
	c.r.Writesets++
	if n, ok := c.blocks.Array(name, w.Root, 8); ok && n != (uint64(w.Bits)+63)/64 {
		c.bad(name, w.Root, "bitset has %d words for %d bits", n, w.Bits)
	}
}

// eras checks that no block was written after the running era.
func (c *checker) eras(name string, s *erameta.Super) {
	err := pdata.WalkArray(c.bm, s.Eras, 4, nil, func(first uint64, values []byte, n int) error {
		for i := range n {
			if era := le.Uint32(values[4*i:]); era > s.Era {
				return &pdata.Corrupt{Block: s.Eras, Path: []uint64{s.Eras}, Tree: name + "era array",
					Reason: fmt.Sprintf("block %d was written in era %d, and the running one is %d", first+uint64(i), era, s.Era)}
			}
		}
		return nil
	})
	if err != nil {
		c.r.add(true, err)
	}
}

// held checks the metadata snapshot.
func (c *checker) held(nr uint64) {
	c.blocks.Refs.Add(nr, 1)
	s, err := erameta.ReadSuperAt(c.bm, nr)
	if err != nil {
		c.r.add(true, pdata.In("metadata snapshot", err))
		return
	}
	c.trees("metadata snapshot/", s)
}

// spaceMap compares the reference counts on the disk with those found.
func (c *checker) spaceMap() {
	v := c.blocks.Map("metadata space map", c.r.Super.Metadata, true)
	if c.r.Fatal > 0 {
		return
	}
	v.Compare(c.blocks.Refs, func(bitmap, nr uint64, have, want uint32) {
		c.r.add(have < want, &pdata.Corrupt{Block: bitmap, Path: []uint64{v.Root.BitmapRoot, bitmap}, Tree: "metadata space map",
			Reason: fmt.Sprintf("block %d is counted %d times, used %d times", nr, have, want)})
	})
}
