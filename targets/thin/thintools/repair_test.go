package thintools_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/env"
	"udm/pdata"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

func TestRepair(t *testing.T) {
	p := busyPool(t, 21, 4000)
	text := dump(t, p.Dev, thintools.DumpOptions{})
	s := must(thinmeta.ReadSuper(env.Real(), p.Dev))
	spoil := bytes.Repeat([]byte{0x5a}, pdata.BlockSize)
	for name, c := range map[string]struct {
		spoil []uint64
		o     thintools.Overrides
	}{
		"nothing":    {},
		"space maps": {spoil: []uint64{s.Metadata.BitmapRoot, s.Data.BitmapRoot, s.Data.RefRoot}},
		"superblock": {spoil: []uint64{0}, o: thintools.Overrides{s.TransactionID + 1, s.DataBlockSize, s.Data.Blocks}},
	} {
		t.Run(name, func(t *testing.T) {
			in, out := p.Dev.Clone(), metatest.Disk(4096)
			for _, nr := range c.spoil {
				writeBlock(t, in, nr, spoil)
			}
			before := in.Sum256()
			ok(t, thintools.Repair(env.Real(), in, out, thintools.RepairOptions{Overrides: c.o}))
			metatest.Tool(t, out, "thin_check")
			if in.Sum256() != before {
				t.Error("the input was changed")
			}
			got, want := dump(t, out, thintools.DumpOptions{}), text
			if c.o.TransactionID != 0 {
				got, want = afterLine(got), afterLine(text)
			}
			same(t, "dump of the repaired", got, want)
		})
	}
}

func afterLine(s string) string { _, s, _ = strings.Cut(s, "\n"); return s }

// TestRepairLosesLittle spoils leaves: what others hold comes through.
func TestRepairLosesLittle(t *testing.T) {
	p := busyPool(t, 22, 6000)
	rng := rand.New(rand.NewPCG(1, 2))
	in, out := p.Dev.Clone(), metatest.Disk(4096)
	lost := map[uint32]map[uint64]bool{}
	bad := map[uint64]bool{}
	bm := pdata.NewBlockManager(env.Real(), p.Dev, 0)
	leaves := func(root uint64, fn func(l pdata.Leaf)) {
		ok(t, pdata.WalkLeaves(bm, root, 8, nil, func(l pdata.Leaf) error { fn(l); return nil }))
	}
	roots := map[uint32]uint64{}
	leaves(must(thinmeta.ReadSuper(env.Real(), p.Dev)).MappingRoot, func(l pdata.Leaf) {
		for i := range l.Len() {
			roots[uint32(l.Key(i))] = binary.LittleEndian.Uint64(l.Value(i))
		}
	})
	for id, root := range roots {
		lost[id] = map[uint64]bool{}
		leaves(root, func(l pdata.Leaf) {
			if bad[l.Nr()] = bad[l.Nr()] || rng.IntN(5) == 0; bad[l.Nr()] {
				for i := range l.Len() {
					lost[id][l.Key(i)] = true
				}
			}
		})
	}
	for nr, bad := range bad {
		if bad {
			b := readBlock(t, in, nr)
			b[rng.IntN(len(b))] ^= 1
			writeBlock(t, in, nr, b)
		}
	}
	damages := 0
	ok(t, thintools.Repair(env.Real(), in, out, thintools.RepairOptions{Damage: func(error) { damages++ }}))
	metatest.Tool(t, out, "thin_check")
	want := p.Now.Clone()
	n := 0
	for id, m := range want.Devs {
		n += len(lost[id])
		for k := range lost[id] {
			delete(m, k)
		}
	}
	metatest.Verify(t, out, want)
	if damages == 0 || n == 0 {
		t.Fatal("nothing was spoiled")
	}
	t.Logf("%d damages passed over, %d mappings lost with them", damages, n)
}

// TestTheirRepair: thin_repair takes our metadata.
func TestTheirRepair(t *testing.T) {
	path, err := exec.LookPath("/usr/sbin/thin_repair")
	if err != nil {
		t.Log("thin_repair is not installed")
		return
	}
	p := busyPool(t, 23, 3000)
	in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
	metatest.Export(t, p.Dev, in)
	ok(t, os.WriteFile(out, make([]byte, 4096*pdata.BlockSize), 0o600))
	if msg, err := exec.Command(path, "-i", in, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("thin_repair: %v\n%s", err, msg)
	}
	same(t, "dump of thin_repair's", dump(t, metatest.Load(t, must(os.ReadFile(out))), thintools.DumpOptions{}), dump(t, p.Dev, thintools.DumpOptions{}))
}

// TestCheckFindsLeaks makes a leak, which is not fatal, and mends it.
func TestCheckFindsLeaks(t *testing.T) {
	p := busyPool(t, 31, 1000)
	leaked := must(p.M.AllocDataBlock())
	ok(t, p.M.IncData(leaked, leaked+1))
	ok(t, p.M.Commit())
	dev := p.Dev.Clone()
	ok(t, p.M.DecData(leaked, leaked+1))
	r := must(thintools.Check(env.Real(), dev, thintools.CheckOptions{}))
	if r.Fatal != 0 || r.NonFatal != 1 || len(r.Leaked.Data) != 1 || r.Leaked.Data[0] != leaked {
		t.Fatalf("%d fatal, %d non-fatal, leaked %v: %v", r.Fatal, r.NonFatal, r.Leaked, r.Err())
	}
	ok(t, must(thintools.Check(env.Real(), dev, thintools.CheckOptions{IgnoreNonFatal: true})).Err())
	_ = must(thintools.Mend(env.Real(), dev, thintools.CheckOptions{}))
	ok(t, must(thintools.Check(env.Real(), dev, thintools.CheckOptions{})).Err())
	metatest.Tool(t, dev, "thin_check")
}

// TestCheckFindsDamage changes each reachable block in turn; thintools.Check must say
// which.
func TestCheckFindsDamage(t *testing.T) {
	p := busyPool(t, 32, 1000)
	for nr := range uint64(400) {
		if must(p.M.MetadataRefs(nr)) == 0 {
			continue
		}
		dev := p.Dev.Clone()
		b := readBlock(t, dev, nr)
		b[100+nr%3000] ^= 4
		writeBlock(t, dev, nr, b)
		r := must(thintools.Check(env.Real(), dev, thintools.CheckOptions{}))
		var c *pdata.Corrupt
		if r.Fatal == 0 || !errors.As(r.Damages[0].Err, &c) || c.Block != nr || len(c.Path) == 0 {
			t.Fatalf("block %d: %v", nr, r.Err())
		}
	}
}
