package zero_test

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/zero"
)

var types = []*dm.Type{zero.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{Forgets: true}, types, "0 4096 zero")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 zero foo => EINVAL No arguments required
		0 64 zero foo bar => EINVAL No arguments required
	`)
}

func TestZero(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("z", "0 64 zero")
	r.Lines(d, dm.Info, "0 64 zero ")
	r.Lines(d, dm.TableText, "0 64 zero ")
	r.Write(d, 0, 64, 1)
	r.Want(d, 0, 64, 0, 0)
	if l := d.Limits(); l.MaxDiscard != 0 || l.MaxWriteZeroes != 0 || l.VolatileCache {
		t.Errorf("limits %+v", l)
	}
	r.Done(r.Submit(d, blk.Read, blk.Readahead, 0, 8, 1), blk.IOErr)
	r.Do(d, blk.Discard, 0, 8, 0, blk.IOErr)
	r.Do(d, blk.WriteZeroes, 0, 8, 0, blk.NotSupported)
	r.Message(d, "hello", "", syscall.EINVAL)
}
