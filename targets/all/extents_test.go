package all_test

import (
	"context"
	"slices"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// maps opens memory disks in the making of whose map a test can do something.
type maps struct{ hook func() }

type mapped struct {
	blk.Device
	maps *maps
}

func (m *maps) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return &mapped{memdev.New(4096), m}, dm.Number{Major: 7, Minor: uint32(name[0])}, nil
}

func (d *mapped) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	if d.maps.hook != nil {
		d.maps.hook()
	}
	return blk.ExtentsOf(d.Device, sector, sectors), nil
}

// TestExtentsOfTables goes through all kinds of tables without data, and what
// happens to them while they are looked at.
func TestExtentsOfTables(t *testing.T) {
	ctx := context.Background()
	m := &maps{}
	c := dm.NewControl(env.Real(), m, all.Types()...)
	defer c.Close()
	d, err := c.Create("x", "", -1)
	check := func(want ...blk.Extent) {
		t.Helper()
		size := uint64(0)
		for _, e := range want {
			size += e.Sectors
		}
		if got, err := d.Extents(0, size); err != nil || !slices.Equal(got, want) {
			t.Errorf("extents %v, %v, want %v", got, err, want)
		}
	}
	load := func(table string) {
		t.Helper()
		specs, err := dm.ParseTable(table)
		if err == nil {
			err = d.Load(specs, dm.Mode{Write: true})
		}
		if err == nil {
			err = d.Resume(ctx, false)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	hole := func(s, n uint64) blk.Extent { return blk.Extent{Sector: s, Sectors: n} }
	data := func(s, n uint64) blk.Extent { return blk.Extent{Sector: s, Sectors: n, Data: true} }
	if err != nil {
		t.Fatal(err)
	}
	check(data(0, 100)) // no table
	load("0 100 zero\n100 50 error\n150 50 linear a 7\n200 40 switch 1 8 0 a 0\n240 60 delay a 0 1")
	check(hole(0, 100), data(100, 50), hole(150, 150))
	check(hole(0, 100), data(100, 50), hole(150, 150), data(300, 20)) // beyond the end
	load("0 64 unstriped 2 8 1 a 0\n64 64 dust a 0 512\n128 64 flakey a 0 0 60\n192 64 flakey a 0 60 0\n256 64 log-writes a b\n320 64 striped 2 8 a 0 b 0")
	check(hole(0, 128), data(128, 64), hole(192, 192))
	if _, err := d.Message(64, "enable"); err != nil {
		t.Error(err)
	}
	check(hole(0, 64), data(64, 128), hole(192, 192))

	load("0 100 linear a 0")
	check(hole(0, 100))
	suspend := func() {
		if err := d.Suspend(ctx, false); err != nil {
			t.Error(err)
		}
	}
	suspend()
	check(data(0, 100))
	load("0 100 linear a 0")
	m.hook = suspend // suspended while it is looked at, without waiting for it
	check(data(0, 100))
	m.hook = nil
	load("0 100 linear a 0")
	resumed := make(chan bool)
	m.hook = func() { // another table is in force
		suspend()
		go func() {
			defer close(resumed)
			load("0 100 linear b 0")
		}()
		if err := blk.ReadSectors(env.Real(), d, make([]byte, 512), 0); err != nil { // waits for the resume
			t.Error(err)
		}
	}
	check(data(0, 100))
	<-resumed
}
