//go:build unix

package clone_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
	"udm/test/kernel"
)

var (
	kernelSeeds = flag.Int("kernelseeds", 2, "seeds of TestKernelPowerCuts")
	kernelFirst = flag.Int("kernelfirst", 0, "the first of them")
)

// TestKernelPowerCuts has the kernel open devices on which udm has lost power, and go on:
// it reads, writes, syncs and hydrates, and its power is cut, too: the device is never
// removed. Then udm opens them, goes on, and hydrates the rest.
func TestKernelPowerCuts(t *testing.T) {
	kernel.Need(t)
	const atOnce = 10 // devices in one boot
	end := *kernelFirst + *kernelSeeds
	for first := *kernelFirst; first < end; first += atOnce {
		var ts []*traveller
		var script strings.Builder
		dir := t.TempDir()
		for seed := first; seed < min(first+atOnce, end); seed++ {
			tr := &traveller{T: t, dir: dir, seed: uint64(seed), table: tables[seed%len(tables)]}
			tr.leave()
			tr.script(&script)
			ts = append(ts, tr)
		}
		kernel.Boot(t, kernel.Options{Dir: dir, Script: script.String()})
		for _, tr := range ts {
			tr.comeBack()
		}
	}
}

// traveller is a device in files.
type traveller struct {
	*testing.T
	dir   string
	seed  uint64
	table string
	h     *history
	d     *disks
}

func (tr *traveller) path(what string) string {
	return filepath.Join(tr.dir, fmt.Sprint(what, tr.seed))
}

func (tr *traveller) must(err error) {
	tr.Helper()
	if err != nil {
		tr.Fatal(err)
	}
}

// leave makes a device with udm, whose power is cut.
func (tr *traveller) leave() {
	d := newDisks(tr.T)
	tr.h = newHistory(tr.seed+1000, mustStart(tr.T, d, tr.table))
	for v := range 5 + tr.h.rng.Uint64N(60) {
		tr.h.step(v + 100)
	}
	tr.d = d.crash(tr.seed)
	for name, m := range tr.d.mems {
		p := make([]byte, m.Limits().Size*blk.SectorSize)
		tr.must(blk.ReadSectors(env.Real(), m, p, 0))
		tr.must(os.WriteFile(tr.path(name), p, 0o600))
	}
}

// script writes what the kernel does: it reads all, then writes and syncs.
func (tr *traveller) script(b *strings.Builder) {
	sh := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	sh("m=$(losetup -f --show $OUT/a%[1]d); d=$(losetup -f --show $OUT/b%[1]d); s=$(losetup -f --show $OUT/c%[1]d)", tr.seed)
	sh("dmsetup create x%d --table \"%s\"", tr.seed, strings.Replace(tr.table, " a b c ", " $m $d $s ", 1))
	sh("dd if=/dev/mapper/x%[1]d of=$OUT/read%[1]d bs=%[2]d count=1 iflag=direct status=none", tr.seed, sectors*blk.SectorSize)
	for i := range 6 {
		at := tr.h.rng.IntN(blocks - 8)
		n := 1 + tr.h.rng.IntN(8)
		version := uint64(9000 + i)
		name := fmt.Sprintf("new%d_", i)
		tr.must(os.WriteFile(tr.path(name), blktest.Pattern(uint64(at)*block, uint64(n)*block, version), 0o600))
		sh("dd if=$OUT/%s%d of=/dev/mapper/x%d bs=2k seek=%d oflag=direct conv=notrunc,fsync status=none", name, tr.seed, tr.seed, at)
		for k := at; k < at+n; k++ {
			tr.h.blocks[k] = content{last: version, may: map[uint64]bool{version: true}}
		}
		if i == 3 {
			sh("dmsetup message x%[1]d 0 hydration_threshold 4; dmsetup message x%[1]d 0 enable_hydration", tr.seed)
		}
	}
	sh("blockdev --flushbufs $m; blockdev --flushbufs $d")
	sh("cp $OUT/a%[1]d $OUT/cuta%[1]d; cp $OUT/b%[1]d $OUT/cutb%[1]d; cp $OUT/c%[1]d $OUT/cutc%[1]d", tr.seed)
}

// comeBack compares what the kernel has read, and goes on from what it has left.
func (tr *traveller) comeBack() {
	tr.Helper()
	before := tr.load("read")
	written := tr.h.blocks
	for b := range tr.h.blocks {
		if _, isNew := tr.version(b); isNew {
			tr.h.blocks[b] = content{anything: true} // compared below
		}
	}
	tr.h.verify(tr.T, env.Real(), before, false)
	for name := range tr.d.mems {
		tr.d.mems[name] = tr.load("cut" + name)
	}
	sound(tr.T, tr.d)
	tr.h.x = mustStart(tr.T, tr.d, tr.table)
	tr.h.blocks = written
	tr.h.verify(tr.T, tr.h.x.sim, tr.h.x, false)
	tr.h.settle(tr.T)
	for v := range uint64(20) {
		tr.h.step(v + 20000)
	}
	tr.h.ends(tr.T, tr.d)
}

// version is what the kernel has written last to a block.
func (tr *traveller) version(b int) (v uint64, yes bool) {
	v = tr.h.blocks[b].last
	return v, v >= 9000
}

func (tr *traveller) load(what string) *memdev.Device {
	tr.Helper()
	p, err := os.ReadFile(tr.path(what))
	tr.must(err)
	m := memdev.New(uint64(len(p))/blk.SectorSize, memdev.Volatile)
	tr.must(blk.WriteSectors(env.Real(), m, p, 0, blk.FUA))
	return m
}
