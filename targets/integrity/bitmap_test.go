package integrity_test

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/env"
)

// regions is a table with eight regions of 64 sectors in what it maps.
const regions = "0 512 integrity a 0 4 B 5 internal_hash:crc32c journal_sectors:1 interleave_sectors:64 buffer_sectors:64 sectors_per_bit:64"

// TestOnlyMarkedRegions damages a block of a region without a bit and one of a region with a
// bit, and cuts the power. Only the tags of the second region are computed again, unless the
// disk is opened in another mode or with another size of regions.
func TestOnlyMarkedRegions(t *testing.T) {
	d := zeroed(t, regions)
	x := mustStart(t, d, regions)
	write := func(x *device, to blk.Device, at uint64, n int, version uint64) {
		t.Helper()
		if err := blk.WriteSectors(x.sim, to, blktest.Pattern(at, uint64(n), version), at, blk.FUA); err != nil {
			t.Fatal(err)
		}
	}
	write(x, x, 0, 512, 1)
	x.sim.Advance(20e9) // the bits are cleared
	write(x, x, 64, 1, 2)
	d = d.crash(1)
	if err := x.control.Close(); err != nil {
		t.Fatal(err)
	}
	data := locate(t, d, 0, 1)
	for _, at := range []uint64{data + 5, data + 64 + 256 + 5} {
		write(x, d.mems["a"], at, 1, 9)
	}
	for _, c := range []struct {
		table string
		all   bool
	}{{regions, false}, {mode(regions, "J"), true}, {mode(regions, "D"), true}, {regions[:len(regions)-1], true}} {
		d := d.crash(2)
		x := mustStart(t, d, c.table)
		x.sim.Run()
		lines := x.Device.(*dm.Device).Lines(dm.Info, false, 0)
		if want := "0 768 768"; lines[0].Params != want {
			t.Errorf("%s: status %q, want %q", c.table, lines[0].Params, want)
		}
		p := make([]byte, 512)
		if err := blk.ReadSectors(x.sim, x, p, 64+5); err != nil {
			t.Errorf("%s: read a marked region: %v", c.table, err)
		}
		if err := blk.ReadSectors(x.sim, x, p, 5); (err == nil) != c.all {
			t.Errorf("%s: read a region without a bit: %v", c.table, err)
		}
		if err := x.control.Close(); err != nil {
			t.Error(err)
		}
		x = mustStart(t, d, regions)
		if err := blk.ReadSectors(x.sim, x, p, 5); (err == nil) != c.all {
			t.Errorf("%s: read a region without a bit later: %v", c.table, err)
		}
		if err := x.control.Close(); err != nil {
			t.Error(err)
		}
	}
}

// locate returns where a disk has a sector with a version.
func locate(t *testing.T, d *disks, sector, version uint64) uint64 {
	t.Helper()
	m := d.mems["a"]
	p := make([]byte, 512)
	for at := uint64(8); at < m.Limits().Size; at++ {
		if err := blk.ReadSectors(env.Real(), m, p, at); err != nil {
			t.Fatal(err)
		}
		if v, ok := blktest.SeedOf(p, sector); ok && v == version {
			return at
		}
	}
	t.Fatal("not found")
	return 0
}
