package thinrescue_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/pdata"
	"udm/targets/internal/targettest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thinrescue"
)

// The blocks of the pool have 128 sectors. Data block b holds the pattern of seed b.
const blockSectors = 128

// madePool makes a pool on disks b (metadata) and a (data). Volume 1 has blocks 0, 1 and
// 300 on, in two leaves; volume 2 is empty.
func madePool(r *targettest.Rig) (leaves []uint64) {
	m := must(thinmeta.Open(env.Real(), r.Disk("b"), thinmeta.Options{DataBlockSize: blockSectors, Format: true}))
	r.Must(m.ResizeData(targettest.Sectors / blockSectors))
	r.Must(m.CreateThin(1))
	r.Must(m.CreateThin(2))
	th := must(m.OpenThin(1))
	for i := range uint64(2) {
		r.Must(th.Insert(i, must(m.AllocDataBlock())))
	}
	for i := range uint64(100) {
		r.Must(th.Insert(300+2*i, must(m.AllocDataBlock())))
	}
	th.Close()
	r.Must(m.Close())
	for b := range uint64(102) {
		r.Must(blk.WriteSectors(r.Sim, r.Disk("a"), blktest.Pattern(0, blockSectors, b+1), b*blockSectors, 0))
	}
	bm := pdata.NewBlockManager(env.Real(), r.Disk("b"), 0)
	r.Must(pdata.WalkLeaves(bm, must(thinmeta.ReadSuperAt(bm, 0)).MappingRoot, 8, nil, func(l pdata.Leaf) error {
		leaves = append(leaves, l.Nr(), must(thinmetaRoot(l)))
		return nil
	}))
	return leaves
}

func thinmetaRoot(l pdata.Leaf) (uint64, error) {
	v := l.Value(0)
	return uint64(v[0]) | uint64(v[1])<<8 | uint64(v[2])<<16, nil
}

var types = []*dm.Type{thinrescue.Type()}

func destroy(r *targettest.Rig, blocks ...uint64) {
	for _, nr := range blocks {
		r.Must(blk.WriteSectors(r.Sim, r.Disk("b"), make([]byte, pdata.BlockSize), nr*pdata.BlockSectors, 0))
	}
}

func TestTarget(t *testing.T) {
	r := targettest.New(t, types)
	madePool(r)
	before := []any{r.Disk("a").Sum256(), r.Disk("b").Sum256()}
	d := r.ReadOnly("v", "0 65536 thin-rescue b a 1")
	r.Lines(d, dm.TableText, "0 65536 thin-rescue 7:1 7:0 1")
	r.Lines(d, dm.Info, "0 65536 thin-rescue superblock 13056 0 0")
	check := func() {
		t.Helper()
		r.Want(d, 128, 128, 0, 2)
		r.Want(d, 2*128, 298*128, 0, 0)
		r.Want(d, 304*128, 128, 0, 5)
		r.Want(d, 305*128, 128, 0, 0)
	}
	check()
	r.Do(d, blk.Write, 0, 8, 1, blk.IOErr)
	if list, err := d.Extents(0, 302*128); err != nil || !slices.Equal(list, []blk.Extent{{Sector: 0, Sectors: 256, Data: true}, {Sector: 256, Sectors: 298 * 128}, {Sector: 300 * 128, Sectors: 128, Data: true}, {Sector: 301 * 128, Sectors: 128}}) {
		t.Errorf("extents %v, %v", list, err)
	}
	destroy(r, 0)
	r.SwapReadOnly(d, "0 65536 thin-rescue b a 1 2 block_size 128")
	r.Lines(d, dm.TableText, "0 65536 thin-rescue 7:1 7:0 1 2 block_size 128")
	r.Lines(d, dm.Info, "0 65536 thin-rescue search 13056 13056 0")
	check()
	r.SwapReadOnly(d, "0 65536 thin-rescue b a 1 3 block_size 128 certain")
	r.Do(d, blk.Read, 0, 8, 1, blk.IOErr)
	if r.Disk("a").Sum256() != before[0] {
		t.Error("the data were changed")
	}
}

// TestLost: a lost leaf cannot be read, nor can what lies beyond the data device.
func TestLost(t *testing.T) {
	r := targettest.New(t, types)
	nodes := madePool(r)
	destroy(r, nodes[1])
	d := r.ReadOnly("v", "0 65536 thin-rescue b a 1")
	r.Lines(d, dm.Info, "0 65536 thin-rescue superblock 0 0 1")
	r.Do(d, blk.Read, 0, 8, 1, blk.IOErr)
	r.Do(d, blk.Read, 60000, 8, 1, blk.IOErr)
	if list, err := d.Extents(0, 65536); err != nil || len(list) != 1 || !list[0].Data {
		t.Errorf("what is lost is a hole: %v, %v", list, err)
	}
	e := r.ReadOnly("w", "0 128 thin-rescue b a 2") // it is empty, and nothing of it is lost
	r.Want(e, 0, 128, 0, 0)
}

func TestRefuses(t *testing.T) {
	r := targettest.New(t, types)
	madePool(r)
	r.Refuses(`
		0 64 thin-rescue b a 1 => EINVAL Device must be readonly
	`)
}

// TestLines: what a table may say.
func TestLines(t *testing.T) {
	for _, words := range []string{"b a 1", "b a @77", "b a 1 2 block_size 256", "b a 1 4 block_size 256 outdated certain"} {
		if l, err := thinrescue.ParseLine(dm.SplitWords(words)); err != nil || l.String() != words {
			t.Errorf("%s: %v, %v", words, l, err)
		}
	}
	for _, words := range []string{"", "b a", "b a x", "b a -1", "b a 1 1", "b a 1 5 outdated", "b a 1 1 whatever", "b a 1 2 block_size 100", "b a 1 1 block_size"} {
		if _, err := thinrescue.ParseLine(dm.SplitWords(words)); err == nil {
			t.Errorf("%s is accepted", words)
		}
	}
	if s, err := thinrescue.ParseStatus("search 8 8 1"); err != nil || s.String() != "search 8 8 1" {
		t.Error(s, err)
	}
	if _, err := thinrescue.ParseStatus("search 8 8"); err == nil {
		t.Error("half a status is accepted")
	}
}

// TestCopy copies a volume of which a sector of the data and a leaf cannot be read.
func TestCopy(t *testing.T) {
	r := targettest.New(t, types)
	madePool(r)
	pool := must(thinrescue.Examine(env.Real(), r.Disk("b"), thinrescue.Options{DataSectors: targettest.Sectors}))
	v := must(pool.Volume("1"))
	to := memdev.New(499 * blockSectors)
	f := blk.NewFile(env.Real(), to)
	data := guarded{r.Disk("a"), t, map[uint64]bool{17: true}} // sectors 136 to 143: of block 1
	c, err := v.Copy(context.Background(), data, f, thinrescue.CopyOptions{})
	r.Must(err)
	if fmt.Sprint(c) != fmt.Sprint(thinrescue.Copied{Bytes: 102*65536 - 4096, Unreadable: []thinrescue.ByteRange{{Offset: 136 * 512, Length: 4096}}}) {
		t.Errorf("copied %+v", c)
	}
	p := make([]byte, 65536)
	for i := range uint64(100) {
		r.Must(blk.ReadSectors(env.Real(), to, p, (300+2*i)*blockSectors))
		r.Must(blktest.Check(p, 0, i+3))
	}
	if v.Sectors() != 499*blockSectors || to.Sum256() == memdev.New(499*blockSectors).Sum256() {
		t.Errorf("the volume ends at %d", v.Sectors())
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := v.Copy(ctx, data, f, thinrescue.CopyOptions{}); err == nil {
		t.Error("an interrupted copy went on")
	}
}
