//go:build unix

package integrity_test

import (
	"bytes"
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

// image is a disk after a power cut, and the history of what it may contain.
type image struct {
	h     *history
	table string
	disks *disks
}

func (i *image) store(t *testing.T, path string) {
	t.Helper()
	m := i.disks.mems["a"]
	p := make([]byte, m.Limits().Size*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), m, p, 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (i *image) load(t *testing.T, path string) {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := memdev.New(uint64(len(p))/blk.SectorSize, memdev.Volatile)
	if err := blk.WriteSectors(env.Real(), m, p, 0, 0); err != nil {
		t.Fatal(err)
	}
	if err := blk.FlushDevice(env.Real(), m); err != nil {
		t.Fatal(err)
	}
	i.disks.mems["a"] = m
}

// TestKernelPowerCuts makes the kernel open disks after udm lost power. The kernel writes and
// syncs, and loses power as well: it never removes the device. Then udm opens the disks. For half
// of the disks, the kernel uses mode J if udm uses B, and the other way around.
func TestKernelPowerCuts(t *testing.T) {
	dir := t.TempDir()
	var images []*image
	var script strings.Builder
	kinds := []string{tables[0], tables[1], tables[3], regions, tables[6], tables[7]}
	for seed := range uint64(2 * len(kinds)) {
		table := kinds[seed%uint64(len(kinds))]
		theirs := table
		if seed >= uint64(len(kinds)) {
			theirs = mode(table, map[bool]string{true: "J", false: "B"}[strings.Contains(table, " B ")])
		}
		d := zeroed(t, table)
		h := newHistory(seed+100, mustStart(t, d, table))
		for v := range 20 + h.rng.Uint64N(200) {
			h.step(v + 1)
		}
		i := &image{h, table, d.crash(seed)}
		i.store(t, filepath.Join(dir, fmt.Sprint("disk", seed)))
		images = append(images, i)
		fmt.Fprintf(&script, "l=$(losetup -f --show $OUT/disk%d)\n", seed)
		fmt.Fprintf(&script, "dmsetup create x%d --table \"%s\"\n", seed, strings.Replace(theirs, " a ", " $l ", 1))
		fmt.Fprintf(&script, "dd if=/dev/mapper/x%d of=$OUT/read%d bs=64k iflag=direct status=none\n", seed, seed)
		p := blktest.Pattern(seed*8, 128, 9000+seed)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("new", seed)), p, 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&script, "dd if=$OUT/new%d of=/dev/mapper/x%d bs=4k seek=%d oflag=direct conv=fsync,notrunc status=none\n", seed, seed, seed)
		fmt.Fprintf(&script, "blockdev --flushbufs $l; cp $OUT/disk%d $OUT/cut%d\n", seed, seed)
	}
	kernel.Boot(t, kernel.Options{Dir: dir, Script: script.String()})
	for seed, i := range images {
		x := readerOf(t, filepath.Join(dir, fmt.Sprint("read", seed)))
		i.h.verify(t, x, false)
		i.load(t, filepath.Join(dir, fmt.Sprint("cut", seed)))
		y := mustStart(t, i.disks, i.table)
		want, err := os.ReadFile(filepath.Join(dir, fmt.Sprint("read", seed)))
		if err != nil {
			t.Fatal(err)
		}
		copy(want[seed*4096:], blktest.Pattern(uint64(seed)*8, 128, 9000+uint64(seed)))
		got := make([]byte, len(want))
		if err := blk.ReadSectors(y.sim, y, got, 0); err != nil || !bytes.Equal(got, want) {
			t.Errorf("disk %d: wrong data after the kernel's power cut, %v", seed, err)
		}
		if err := y.control.Close(); err != nil {
			t.Error(err)
		}
	}
}

// readerOf returns a file as a device for history.verify.
func readerOf(t *testing.T, path string) *device {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sim := env.NewStepped()
	m := memdev.New(uint64(len(p)) / blk.SectorSize)
	if err := blk.WriteSectors(sim, m, p, 0, 0); err != nil {
		t.Fatal(err)
	}
	return &device{Device: m, sim: sim}
}
