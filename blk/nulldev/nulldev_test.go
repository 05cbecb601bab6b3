package nulldev_test

import (
	"bytes"
	"testing"

	"udm/blk"
	"udm/blk/nulldev"
	"udm/env"
)

func TestReadsLeaveOrZeroTheBuffer(t *testing.T) {
	full, zero := bytes.Repeat([]byte{7}, 1024), make([]byte, 1024)
	for _, c := range []struct {
		d    *nulldev.Device
		want []byte
	}{
		{nulldev.New(8), full},
		{nulldev.New(8, nulldev.ZeroReads), zero},
	} {
		p := bytes.Clone(full)
		if err := blk.ReadSectors(env.Real(), c.d, p, 2); err != nil || !bytes.Equal(p, c.want) {
			t.Fatalf("%v, first byte %d, want %d", err, p[0], c.want[0])
		}
	}
}

func TestTuneChangesLimits(t *testing.T) {
	d := nulldev.New(8, nulldev.Tune(func(l *blk.Limits) { l.LogicalBlock = 4096 }))
	if l := d.Limits(); l.LogicalBlock != 4096 || l.Size != 8 || l.MaxDiscard == 0 {
		t.Fatalf("%+v", l)
	}
	if d.String() != "null:4096" {
		t.Fatal(d.String())
	}
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	d, p := nulldev.New(8), make([]byte, 4096)
	b := &blk.Bio{End: func(*blk.Bio) {}}
	if n := testing.AllocsPerRun(100, func() { again(d, b, p) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func again(d *nulldev.Device, b *blk.Bio, p []byte) {
	b.Rearm()
	b.SetData(p)
	d.Submit(b)
}

func BenchmarkRead4K(b *testing.B) {
	d, p := nulldev.New(8), make([]byte, 4096)
	bio := &blk.Bio{End: func(*blk.Bio) {}}
	b.ReportAllocs()
	for b.Loop() {
		again(d, bio, p)
	}
}
