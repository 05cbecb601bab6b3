package thinmeta

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/env"
	"udm/pdata"
)

func TestRepair(t *testing.T) {
	p := busyPool(t, 21, 4000)
	text := dump(t, p.dev, DumpOptions{})
	s := must(ReadSuper(env.Real(), p.dev))
	spoil := bytes.Repeat([]byte{0x5a}, pdata.BlockSize)
	for name, c := range map[string]struct {
		spoil []uint64
		o     Overrides
	}{
		"nothing":    {},
		"space maps": {spoil: []uint64{s.Metadata.BitmapRoot, s.Data.BitmapRoot, s.Data.RefRoot}},
		"superblock": {spoil: []uint64{0}, o: Overrides{s.TransactionID + 1, s.DataBlockSize, s.Data.Blocks}},
	} {
		t.Run(name, func(t *testing.T) {
			in, out := p.dev.Clone(), newDisk(4096)
			for _, nr := range c.spoil {
				writeBlock(t, in, nr, spoil)
			}
			before := in.Sum256()
			ok(t, Repair(env.Real(), in, out, RepairOptions{Overrides: c.o}))
			tool(t, out, "thin_check")
			if in.Sum256() != before {
				t.Error("the input was changed")
			}
			got, want := dump(t, out, DumpOptions{}), text
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
	in, out := p.dev.Clone(), newDisk(4096)
	lost := map[uint32]map[uint64]bool{}
	bad := map[uint64]bool{}
	src := newSource(env.Real(), p.dev, DumpOptions{})
	ok(t, src.open())
	for id, root := range must(src.roots()) {
		lost[id] = map[uint64]bool{}
		ok(t, pdata.WalkLeaves(src.bm, root, 8, nil, func(l pdata.Leaf) error {
			if bad[l.Nr()] = bad[l.Nr()] || rng.IntN(5) == 0; bad[l.Nr()] {
				for i := range l.Len() {
					lost[id][l.Key(i)] = true
				}
			}
			return nil
		}))
	}
	for nr, bad := range bad {
		if bad {
			b := readBlock(t, in, nr)
			b[rng.IntN(len(b))] ^= 1
			writeBlock(t, in, nr, b)
		}
	}
	damages := 0
	ok(t, Repair(env.Real(), in, out, RepairOptions{Damage: func(error) { damages++ }}))
	tool(t, out, "thin_check")
	want := p.now.clone()
	n := 0
	for id, m := range want.devs {
		n += len(lost[id])
		for k := range lost[id] {
			delete(m, k)
		}
	}
	verify(t, out, want)
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
	export(t, p.dev, in)
	ok(t, os.WriteFile(out, make([]byte, 4096*pdata.BlockSize), 0o600))
	if msg, err := exec.Command(path, "-i", in, "-o", out).CombinedOutput(); err != nil {
		t.Fatalf("thin_repair: %v\n%s", err, msg)
	}
	same(t, "dump of thin_repair's", dump(t, load(t, must(os.ReadFile(out))), DumpOptions{}), dump(t, p.dev, DumpOptions{}))
}

// TestCheckFindsLeaks makes a leak, which is not fatal, and mends it.
func TestCheckFindsLeaks(t *testing.T) {
	p := busyPool(t, 31, 1000)
	leaked := must(p.m.AllocDataBlock())
	ok(t, p.m.Commit())
	dev := p.dev.Clone()
	ok(t, p.m.DecData(leaked, leaked+1))
	r := must(Check(env.Real(), dev, CheckOptions{}))
	if r.Fatal != 0 || r.NonFatal != 1 || len(r.Leaked.Data) != 1 || r.Leaked.Data[0] != leaked {
		t.Fatalf("%d fatal, %d non-fatal, leaked %v: %v", r.Fatal, r.NonFatal, r.Leaked, r.Err())
	}
	ok(t, must(Check(env.Real(), dev, CheckOptions{IgnoreNonFatal: true})).Err())
	_ = must(Mend(env.Real(), dev, CheckOptions{}))
	ok(t, must(Check(env.Real(), dev, CheckOptions{})).Err())
	tool(t, dev, "thin_check")
}

// TestCheckFindsDamage changes each reachable block in turn; Check must say
// which.
func TestCheckFindsDamage(t *testing.T) {
	p := busyPool(t, 32, 1000)
	for nr := range uint64(400) {
		if must(p.m.tm.Ref(nr)) == 0 {
			continue
		}
		dev := p.dev.Clone()
		b := readBlock(t, dev, nr)
		b[100+nr%3000] ^= 4
		writeBlock(t, dev, nr, b)
		r := must(Check(env.Real(), dev, CheckOptions{}))
		var c *pdata.Corrupt
		if r.Fatal == 0 || !errors.As(r.Damages[0].Err, &c) || c.Block != nr || len(c.Path) == 0 {
			t.Fatalf("block %d: %v", nr, r.Err())
		}
	}
}
