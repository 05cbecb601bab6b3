package logwrites

import (
	"context"
	"testing"

	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/targets/linear"
)

// The log's copy and what the device gets are the same only if the data does not
// change in between, however many devices stand above.
func TestStableWritesAreInherited(t *testing.T) {
	e := env.Real()
	c := dm.NewControl(e, leaf.New(e), Type(), linear.Type())
	for _, d := range []struct {
		name, table string
		stable      bool
	}{
		{"plain", "0 64 linear mem:64K 0", false},
		{"logged", "0 64 log-writes mem:64K:a mem:1M", true},
		{"above", "0 32 linear /dev/mapper/plain 0\n32 32 linear /dev/mapper/logged 0", true},
	} {
		specs, err := dm.ParseTable(d.table)
		if err != nil {
			t.Fatal(err)
		}
		dev, err := c.Create(d.name, "", -1)
		if err == nil {
			err = dev.Load(specs, dm.Mode{Write: true})
		}
		if err == nil {
			err = dev.Resume(context.Background(), false)
		}
		if err != nil {
			t.Fatal(err)
		}
		h, err := dev.Open(true)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.Limits().StableWrites; got != d.stable {
			t.Errorf("%s: stable writes %v", d.name, got)
		}
		h.Close()
	}
}
