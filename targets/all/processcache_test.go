package all_test

import (
	"context"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// lasting is a disk that outlives the process.
type lasting struct{ *memdev.Device }

func (l lasting) Limits() blk.Limits {
	limits := l.Device.Limits()
	limits.ProcessCache, limits.ProcessMemory = false, false
	return limits
}

// disks is an opener of disks that outlive the process, but for "mem".
type disks map[string]blk.Device

func (d disks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	if d[name] == nil {
		d[name] = lasting{memdev.New(1 << 16)}
	}
	return d[name], dm.Number{Major: 7, Minor: uint32(len(name))}, nil
}

// Which tables lose completed writes with the process: a thin volume, whose mappings are
// committed later, a snapshot with store N, and what stands on these or on memory; and of
// which a flush saves nothing.
func TestProcessCache(t *testing.T) {
	c := dm.NewControl(env.Real(), disks{"mem": memdev.New(1 << 16)}, all.Types()...)
	defer c.Close()
	for _, x := range []struct {
		name, table, message string
		want, memory         bool
	}{
		{"linear", "0 1024 linear a 0", "", false, false},
		{"memory", "0 1024 linear mem 0", "", true, true},
		{"mixed", "0 1024 linear a 0\n1024 1024 linear mem 0", "", true, true},
		{"persistent", "0 1024 snapshot a cc P 8", "", false, false},
		{"transient", "0 1024 snapshot bbbb ccccc N 8", "", true, true},
		{"pool", "0 65536 thin-pool pool-meta pool-data 128 0", "create_thin 0", false, false},
		{"thin", "0 1024 thin /dev/mapper/pool 0", "", true, false},
		{"onthin", "0 1024 linear /dev/mapper/thin 0", "", true, false},
	} {
		specs, err := dm.ParseTable(x.table)
		if err != nil {
			t.Fatal(err)
		}
		d, err := c.Create(x.name, "", -1)
		if err == nil {
			err = d.Load(specs, dm.Mode{Write: true})
		}
		if err == nil {
			err = d.Resume(context.Background(), false)
		}
		if err == nil && x.message != "" {
			_, err = d.Message(0, x.message)
		}
		if err != nil {
			t.Fatalf("%s: %v", x.name, err)
		}
		if got := d.Limits().ProcessCache; got != x.want {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
		if got := d.Limits().ProcessMemory; got != x.memory {
			t.Errorf("%s: in memory %v, want %v", x.name, got, x.memory)
		}
	}
}
