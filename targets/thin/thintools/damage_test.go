package thintools_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

var damages = flag.Int("damages", 200, "random damages to try")

// guarded refuses to be written to.
type guarded struct {
	blk.Device
	t *testing.T
}

func (g guarded) Submit(b *blk.Bio) {
	if b.Op != blk.Read {
		g.t.Errorf("%v to metadata that is only looked at", b)
	}
	g.Device.Submit(b)
}

// smallPool has a tree of two levels, shared nodes, high reference counts and a
// metadata snapshot in few blocks.
func smallPool(t testing.TB) *memdev.Device {
	dev := metatest.Disk(256)
	m := must(thinmeta.Open(env.Real(), dev, thinmeta.Options{DataBlockSize: 128, Format: true}))
	ok(t, m.ResizeData(2000))
	ok(t, m.CreateThin(1))
	th := must(m.OpenThin(1))
	for k := range uint64(600) {
		ok(t, th.Insert(k*3, must(m.AllocDataBlock())))
	}
	for id := uint32(2); id < 6; id++ {
		ok(t, m.CreateSnap(id, 1))
		for k := range uint64(20) {
			ok(t, th.Insert(k*uint64(id), must(m.AllocDataBlock())))
		}
	}
	ok(t, m.ReserveSnap())
	ok(t, th.Insert(1, must(m.AllocDataBlock())))
	th.Close()
	ok(t, m.Close())
	return dev
}

// spoil changes a block that is in use. With seal its checksum becomes right
// again, as if a program had written nonsense.
func spoil(rng *rand.Rand, t testing.TB, dev blk.Device, used []uint64) (nr uint64, sealed bool) {
	nr = used[rng.IntN(len(used))]
	p := readBlock(t, dev, nr)
	kind := kindOf(p, nr)
	for range 1 + rng.IntN(4) {
		i := rng.IntN(len(p))
		if rng.IntN(3) == 0 {
			i = rng.IntN(400) // where headers and first keys are
		}
		if rng.IntN(2) == 0 {
			p[i] ^= 1 << rng.IntN(8)
		} else {
			p[i] = byte(rng.Uint32())
		}
	}
	if sealed = kind != nil && rng.IntN(2) == 0; sealed {
		kind.Seal(p, nr)
	}
	writeBlock(t, dev, nr, p)
	return nr, sealed
}

func kindOf(p []byte, nr uint64) *pdata.Kind {
	for _, k := range append(pdata.Kinds(), thinmeta.KindSuper) {
		if k.Verify(p, nr) == "" {
			return k
		}
	}
	return nil
}

// TestDamage damages metadata at random. Nothing may panic or hang, looking may
// not write, and what is found must name its place.
func TestDamage(t *testing.T) {
	rng := rand.New(rand.NewPCG(*metatest.Seed, 4))
	base := smallPool(t)
	m := must(thinmeta.Open(env.Real(), base, thinmeta.Options{}))
	var used []uint64
	for nr := range m.MetadataBlocks() {
		if must(m.MetadataRefs(nr)) > 0 {
			used = append(used, nr)
		}
	}
	found := 0
	for i := range metatest.Scaled(*damages) {
		dev := base.Clone()
		nr, sealed := spoil(rng, t, dev, used)
		clean := same256(base, dev)
		r, err := thintools.Check(env.Real(), guarded{dev, t}, thintools.CheckOptions{CacheBytes: 1})
		ok(t, err)
		var c *pdata.Corrupt
		switch {
		case r.Err() != nil && !errors.As(r.Err(), &c) && r.Super.HeldRoot == 0:
			t.Fatalf("damage %d to block %d: %v names no place", i, nr, r.Err())
		case r.Err() == nil && !sealed && !clean:
			t.Fatalf("damage %d to block %d was not found", i, nr)
		}
		if r.Err() != nil {
			found++
		}
		_ = thintools.Dump(env.Real(), guarded{dev, t}, io.Discard, thintools.DumpOptions{})
		_ = thintools.Dump(env.Real(), guarded{dev, t}, io.Discard, thintools.DumpOptions{Repair: true})
		_ = thintools.Repair(env.Real(), guarded{dev, t}, metatest.Disk(256), thintools.RepairOptions{})
		useAnyway(t, dev)
	}
	t.Logf("%d of %d damages found", found, *damages)
}

func same256(a, b *memdev.Device) bool { return a.Sum256() == b.Sum256() }

// useAnyway does all that a pool does, whatever comes of it.
func useAnyway(t *testing.T, dev blk.Device) {
	m, err := thinmeta.Open(env.Real(), dev, thinmeta.Options{CacheBytes: 1})
	if err != nil {
		return
	}
	for id := range uint32(6) {
		th, err := m.OpenThin(id)
		if err != nil {
			continue
		}
		_, _ = th.Find(9)
		_, _ = th.TryFind(9)
		_, _ = th.FindRange(0, 1000)
		_, _, _ = th.HighestMapped()
		if b, err := m.AllocDataBlock(); err == nil {
			_ = th.Insert(uint64(id)*301, b)
		}
		_ = th.RemoveRange(10, 500)
		th.Close()
		recover1(m)
	}
	_ = m.CreateSnap(77, 1)
	_ = m.DeleteThin(2)
	_ = m.ReleaseSnap()
	_ = m.ResizeData(40000)
	recover1(m)
	_ = m.Close()
}

// recover1 aborts a broken transaction.
func recover1(m *thinmeta.Metadata) {
	if m.Commit() != nil {
		_ = m.Abort()
	}
}

// FuzzBlock puts arbitrary bytes, sealed, in the place of each kind of block and
// uses the pool.
func FuzzBlock(f *testing.F) {
	base := smallPool(f)
	s := must(thinmeta.ReadSuper(env.Real(), base))
	places := []uint64{thinmeta.SuperBlock, s.MappingRoot, s.DetailsRoot, s.Data.BitmapRoot, s.Data.RefRoot, s.Metadata.BitmapRoot,
		s.Metadata.RefRoot, s.HeldRoot}
	places = append(places, binary.LittleEndian.Uint64(readBlock(f, base, s.Metadata.BitmapRoot)[16:]))
	places = append(places, binary.LittleEndian.Uint64(readBlock(f, base, s.MappingRoot)[32+252*8:]))
	for i, nr := range places {
		f.Add(byte(i), readBlock(f, base, nr))
	}
	f.Fuzz(func(t *testing.T, place byte, p []byte) {
		nr := places[int(place)%len(places)]
		dev := base.Clone()
		b := readBlock(t, dev, nr)
		kind := kindOf(b, nr)
		copy(b, p)
		if kind == thinmeta.KindSuper {
			binary.LittleEndian.PutUint64(b[32:], thinmeta.SuperMagic)
		}
		kind.Seal(b, nr)
		writeBlock(t, dev, nr, b)
		_, err := thintools.Check(env.Real(), guarded{dev, t}, thintools.CheckOptions{CacheBytes: 1})
		ok(t, err)
		_ = thintools.Dump(env.Real(), guarded{dev, t}, io.Discard, thintools.DumpOptions{Repair: true})
		useAnyway(t, dev)
	})
}

// FuzzXML: whatever restores must pass the check and dump to itself.
func FuzzXML(f *testing.F) {
	f.Add(dump(f, smallPool(f), thintools.DumpOptions{}))
	f.Add(`<superblock uuid="" time="3" transaction="4" data_block_size="128" nr_data_blocks="100"><def name="x"/><!-- --></superblock>`)
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, `length="`) && len(text) > 200 {
			text = text[:min(len(text), 1<<16)]
		}
		dev := metatest.Disk(300)
		if thintools.Restore(env.Real(), strings.NewReader(text), dev, thintools.RestoreOptions{}) != nil {
			return
		}
		r := must(thintools.Check(env.Real(), dev, thintools.CheckOptions{}))
		ok(t, r.Err())
		once := dump(t, dev, thintools.DumpOptions{})
		again := metatest.Disk(300)
		ok(t, thintools.Restore(env.Real(), strings.NewReader(once), again, thintools.RestoreOptions{}))
		if !bytes.Equal([]byte(once), []byte(dump(t, again, thintools.DumpOptions{}))) {
			t.Fatal("dump of the restored dump differs")
		}
	})
}
