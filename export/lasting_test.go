package export

import (
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
)

// forgetful is a disk that keeps metadata of writes in memory until a flush, which ends when the test says so, or at once.
type forgetful struct {
	*memdev.Device
	writes, committed atomic.Int32
	flushes           chan *blk.Bio // nil: they end at once
}

func (d *forgetful) Submit(b *blk.Bio) {
	switch {
	case b.Op == blk.Flush && d.flushes != nil:
		d.flushes <- b
	case b.Op == blk.Flush:
		d.end(b, blk.OK)
	case b.Op.IsWrite():
		d.writes.Add(1)
		d.Device.Submit(b)
	default:
		d.Device.Submit(b)
	}
}

func (d *forgetful) end(b *blk.Bio, st blk.Status) {
	if st == blk.OK {
		d.committed.Store(d.writes.Load())
	}
	b.Complete(st)
}

func openLasting(t *testing.T, d *forgetful) *Export {
	t.Helper()
	x := Export{Info: Info{Name: "d"}, Device: Check(d), Uncommitted: func() bool { return d.writes.Load() > d.committed.Load() }}
	e, err := Lasting(Fixed{x}).Open("d")
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newForgetful(flushes chan *blk.Bio) *forgetful {
	m := memdev.New(64, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.ProcessCache, l.ProcessMemory = true, false }))
	return &forgetful{Device: m, flushes: flushes}
}

// Writes of a device that would forget them end after a flush, which all share that have ended when it begins. Reads do not wait, and
// the status of the flush is that of the writes that it covers.
func TestLasting(t *testing.T) {
	d := newForgetful(make(chan *blk.Bio, 1))
	e := openLasting(t, d)
	ended := make(chan *blk.Bio, 16)
	submit := func(op blk.Op, f blk.Flags) {
		b := &blk.Bio{Op: op, Flags: f, Sector: 8, Sectors: 1, End: func(b *blk.Bio) { ended <- b }}
		if op.HasData() {
			b.SetData(make([]byte, blk.SectorSize))
		}
		e.Device.Submit(b)
	}
	none := func() {
		t.Helper()
		select {
		case b := <-ended:
			t.Errorf("%v has ended", b)
		default:
		}
	}
	submit(blk.Write, 0)
	first := <-d.flushes
	submit(blk.WriteZeroes, 0)
	submit(blk.Write, 0)
	none()
	submit(blk.Read, 0)
	if b := <-ended; b.Op != blk.Read {
		t.Errorf("%v has ended", b)
	}
	d.end(first, blk.OK)
	if b := <-ended; b.Op != blk.Write || b.Status() != blk.OK {
		t.Errorf("%v: %v", b, b.Status())
	}
	// The flush has committed the others, too, as far as this disk knows, but they had not ended when it began.
	second := <-d.flushes
	none()
	d.end(second, blk.NoSpace)
	for range 2 {
		if b := <-ended; b.Status() != blk.NoSpace {
			t.Errorf("%v: %v, and the flush had no space", b, b.Status())
		}
	}
}

// Flushes that end inline do not nest.
func TestLastingInline(t *testing.T) {
	d := newForgetful(nil)
	e := openLasting(t, d)
	var left atomic.Int32
	left.Store(100_000)
	for left.Load() > 0 {
		b := &blk.Bio{Op: blk.Write, End: func(b *blk.Bio) {
			if b.Status() != blk.OK || d.committed.Load() != d.writes.Load() {
				t.Errorf("%v: %v, %d of %d writes are committed", b, b.Status(), d.committed.Load(), d.writes.Load())
			}
			left.Add(-1)
		}}
		b.SetData(make([]byte, blk.SectorSize))
		e.Device.Submit(b)
	}
}
