//go:build unix

package era_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
	"udm/targets/era/eratools"
	"udm/test/kernel"
)

var (
	kernelSeeds = flag.Int("kernelseeds", 2, "seeds of TestKernelPowerCuts")
	kernelFirst = flag.Int("kernelfirst", 0, "the first of them")
)

// TestKernelPowerCuts has the kernel open devices on which udm has lost power, and go on;
// then the kernel loses its power, too: the device is never removed. Then udm opens them
// and goes on. The metadata tell of each write in its era all the time, also when they
// are read by Debian's tools.
func TestKernelPowerCuts(t *testing.T) {
	kernel.Need(t)
	const atOnce = 10 // devices in one boot
	end := *kernelFirst + *kernelSeeds
	for first := *kernelFirst; first < end; first += atOnce {
		var ts []*traveller
		var script strings.Builder
		dir := t.TempDir()
		for seed := first; seed < min(first+atOnce, end); seed++ {
			tr := &traveller{T: t, dir: dir, seed: uint64(seed)}
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
	dir  string
	seed uint64
	h    *history
	d    *disks
	held bool // there is a metadata snapshot
}

func (tr *traveller) path(disk string) string {
	return filepath.Join(tr.dir, fmt.Sprint(disk, tr.seed))
}

// leave makes a device with udm, whose power is cut.
func (tr *traveller) leave() {
	d := newDisks()
	tr.h = newHistory(tr.seed+1000, mustStart(tr.T, d))
	for v := range 10 + tr.h.rng.Uint64N(80) {
		tr.h.step(v + 1)
	}
	tr.d = d.crash(tr.seed)
	for name, m := range tr.d.mems {
		store(tr.T, m, tr.path(name))
	}
	rep, err := eratools.Check(env.Real(), tr.d.mems["a"], false)
	if err != nil || rep.Err() != nil {
		tr.Fatal(err, rep.Err())
	}
	tr.h.at, tr.held = rep.Super.Era, rep.Super.Held != 0
}

// script writes what the kernel does, and follows it.
func (tr *traveller) script(b *strings.Builder) {
	h := tr.h
	sh := func(format string, args ...any) { fmt.Fprintf(b, format+"\n", args...) }
	message := func(text string) { sh("dmsetup message x%d 0 %s", tr.seed, text) }
	sh("m=$(losetup -f --show $OUT/a%d); o=$(losetup -f --show $OUT/b%d)", tr.seed, tr.seed)
	sh("dmsetup create x%d --table \"%s\"", tr.seed, strings.Replace(table, " a b ", " $m $o ", 1))
	h.at++
	for range 10 {
		switch n := h.rng.IntN(10); {
		case n < 6:
			block := h.rng.IntN(blocks - 1)
			sh("dd if=/dev/zero of=/dev/mapper/x%d bs=8k count=1 seek=%d oflag=direct conv=notrunc status=none", tr.seed, block)
			h.min[block], h.max[block] = h.at, h.at
		case n < 8:
			message("checkpoint")
			h.at++
		case tr.held:
			message("drop_metadata_snap")
			tr.held = false
		default:
			message("take_metadata_snap")
			h.at, tr.held = h.at+1, true
		}
	}
	sh("dmsetup status x%d > $OUT/status%d", tr.seed, tr.seed)
	sh("blockdev --flushbufs $m; blockdev --flushbufs $o; cp $OUT/a%d $OUT/cuta%d; cp $OUT/b%d $OUT/cutb%d", tr.seed, tr.seed, tr.seed, tr.seed)
}

// comeBack reads what the kernel has left, and goes on.
func (tr *traveller) comeBack() {
	tr.Helper()
	h := tr.h
	status, err := os.ReadFile(tr.path("status"))
	if want := fmt.Sprintf(" %d ", h.at); err != nil || !strings.Contains(string(status), want) {
		tr.Errorf("seed %d: the kernel says %s, want era %d", tr.seed, status, h.at)
	}
	for name := range tr.d.mems {
		tr.d.mems[name] = load(tr.T, tr.path("cut"+name))
	}
	debian(tr.T, "era_check", tr.path("cuta"))
	h.verify(tr.T, tr.d.mems["a"])
	h.x = mustStart(tr.T, tr.d)
	h.look()
	for v := range uint64(30) {
		h.step(v + 5000)
	}
	if err := h.x.control.Close(); err != nil {
		tr.Error(err)
	}
	h.verify(tr.T, tr.d.mems["a"])
}

func load(t *testing.T, path string) *memdev.Device {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := memdev.New(uint64(len(p))/blk.SectorSize, memdev.Volatile)
	if err := blk.WriteSectors(env.Real(), m, p, 0, blk.FUA); err != nil {
		t.Fatal(err)
	}
	return m
}
