package nbd_test

import (
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/blk/nbdclient"
	"udm/export"
	"udm/export/nbd"
)

// TestGrow checks that with Config.Grow an old connection can use the space that
// the device has gained, and no more.
func TestGrow(t *testing.T) {
	d := memdev.New(2048)
	_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(d)}}, Grow: true})
	c := dial(t, addr, nbdclient.Options{})
	if st := <-submit(c, blk.Read, 2048, 8); st != blk.Invalid {
		t.Errorf("a read beyond the end: %v", st)
	}
	d.Resize(4096)
	if st := <-submit(c, blk.Read, 2048, 2048); st != blk.OK {
		t.Errorf("a read of what it has grown by: %v", st)
	}
	if st := <-submit(c, blk.Read, 4096, 8); st != blk.Invalid {
		t.Errorf("a read beyond the new end: %v", st)
	}
}
