package errortarget_test

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/dm"
	errortarget "udm/targets/error"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{errortarget.Type(), linear.Type()}

func TestError(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("e", "0 32 linear a 0\n32 32 error foo bar 17")
	r.Lines(d, dm.Info, "0 32 linear \n32 32 error ")
	r.Lines(d, dm.TableText, "0 32 linear 7:0 0\n32 32 error ")
	for _, op := range []blk.Op{blk.Read, blk.Write, blk.Discard} {
		r.Do(d, op, 40, 8, 1, blk.IOErr)
	}
	r.Do(d, blk.WriteZeroes, 40, 8, 0, blk.NotSupported)
	r.Write(d, 24, 8, 1)
	r.Do(d, blk.Write, 28, 8, 2, blk.IOErr)
	r.WantDisk("a", 28, 4, 28, 2) // the part before the error was written
	if l := d.Limits(); l.MaxDiscard != 0 || l.MaxWriteZeroes != 0 {
		t.Errorf("limits %+v", l)
	}
	r.Message(d, "hello", "", syscall.EINVAL)
}
