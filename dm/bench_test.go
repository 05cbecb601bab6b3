package dm

import (
	"context"
	"testing"

	"udm/blk"
	"udm/env"
)

// null completes everything inline.
type null struct{ size uint64 }

func (n null) Submit(b *blk.Bio)  { b.Complete(blk.OK) }
func (n null) Limits() blk.Limits { return blk.DefaultLimits(n.size) }
func (n null) Close() error       { return nil }
func (n null) String() string     { return "null" }

type anyNull struct{}

func (anyNull) Open(string, bool) (blk.Device, Number, error) {
	return null{1 << 20}, Number{Major: 1}, nil
}

// shift is the smallest target that remaps.
type shift struct {
	dev *Dev
	off uint64
}

func (s *shift) Map(c *Clone) Outcome {
	c.SetDev(s.dev)
	c.Sector = c.Offset() + s.off
	return Remapped
}
func (s *shift) Close() {}

var shiftType = &Type{Name: "shift", New: func(t *Target, args []string) (Mapper, error) {
	d, err := t.Open(args[0], true)
	t.NumFlush = 1
	return &shift{d, 0}, err
}}

func benchDevice(b testing.TB) *Device {
	b.Helper()
	c := NewControl(env.Real(), anyNull{}, shiftType)
	d, err := c.Create("d", "", -1)
	if err == nil {
		err = d.Load([]Spec{{0, 1 << 20, "shift", "null"}}, Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return d
}

func BenchmarkSubmit(b *testing.B) { benchSubmit(b, benchDevice(b)) }

// BenchmarkSubmitAccounted measures the cost of statistics.
func BenchmarkSubmitAccounted(b *testing.B) {
	d := benchDevice(b)
	d.control.Account()
	benchSubmit(b, d)
}

// BenchmarkSubmitTraced measures the cost of a trace whose reader does not keep up.
func BenchmarkSubmitTraced(b *testing.B) {
	d := benchDevice(b)
	d.Trace(NewTracer(env.Real(), 1<<14))
	benchSubmit(b, d)
}

func benchSubmit(b *testing.B, d *Device) {
	var bio blk.Bio
	bio.SetData(make([]byte, 4096))
	bio.End = func(*blk.Bio) {}
	b.ReportAllocs()
	for i := range b.N {
		bio.Rearm()
		bio.Sector = uint64(i%65536) * 8
		d.Submit(&bio)
	}
}

func BenchmarkSubmitParallel(b *testing.B) {
	d := benchDevice(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var bio blk.Bio
		bio.SetData(make([]byte, 4096))
		bio.End = func(*blk.Bio) {}
		i := 0
		for pb.Next() {
			bio.Rearm()
			bio.Sector = uint64(i%65536) * 8
			i++
			d.Submit(&bio)
		}
	})
}

// BenchmarkCopy is the yardstick: a 4 KiB copy within the first-level cache.
func BenchmarkCopy(b *testing.B) {
	src, dst := make([]byte, 4096), make([]byte, 4096)
	for b.Loop() {
		copy(dst, src)
	}
}
