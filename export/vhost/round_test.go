//go:build linux

package vhost

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/leaf"
	"udm/dm"
	"udm/env"
	"udm/export"
	"udm/export/internal/virtq"
	"udm/internal/invariants"
	"udm/targets/linear"
)

// rounds is a worker without a thread, whose rounds the test runs, and its driver.
type rounds struct {
	w       *worker
	d       virtq.Driver
	m       []byte
	out, in [2]virtq.Buf
}

func newRounds(t testing.TB, d blk.Device, packed bool) *rounds {
	fd := must[int](t)(unix.MemfdCreate("guest", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING))
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, memLen); err != nil {
		t.Fatal(err)
	}
	s := newSession(&export.Export{Device: export.Check(d)}, &Config{Queues: 1, Log: slog.New(slog.DiscardHandler)}, func(err error) { t.Error(err) })
	t.Cleanup(s.close)
	p := must[*mapping](t)(mapRegion(regionDesc{guestAt, memLen, userAt, 0}, fd))
	if err := s.setMemory([]*mapping{p}); err != nil {
		t.Fatal(err)
	}
	s.features = featEventIdx | featIndirect | featFlush
	f := virtq.Features{EventIdx: true, Indirect: true, Packed: packed}
	if packed {
		s.features |= featPacked
	}
	s.cache.accept(s.features)
	r := s.rings[0]
	r.num, r.addr, r.enabled = ringSize, ringAddr{desc: userAt, used: userAt + usedOff, avail: userAt + availOff}, true
	x := &rounds{m: p.Mem}
	x.d = must[virtq.Driver](t)(virtq.NewDriver(ringSize, f, virtq.Rings{Desc: x.m, Avail: x.m[availOff:], Used: x.m[usedOff:]}, x.m[tableOff:][:16*8*ringSize], guestAt+tableOff))
	x.w = newWorker(r, -1)
	x.w.guard(x.w.begin)
	t.Cleanup(x.w.end)
	return x
}

// add makes n requests of 4 KiB available.
func (x *rounds) add(op uint32, n int, sector func() uint64) {
	for i := range n {
		h := headOff + 32*i
		order.PutUint32(x.m[h:], op)
		order.PutUint64(x.m[h+8:], sector())
		head, status := virtq.Buf{Addr: guestAt + uint64(h), Len: 16}, virtq.Buf{Addr: guestAt + uint64(h) + 16, Len: 1}
		data := virtq.Buf{Addr: guestAt + dataOff + uint64(i)<<12, Len: 4096}
		x.out, x.in = [2]virtq.Buf{head, data}, [2]virtq.Buf{data, status}
		if op == typeIn {
			x.d.Add(x.out[:1], x.in[:])
		} else {
			x.d.Add(x.out[:], x.in[1:])
		}
	}
	x.d.Publish()
}

// run makes requests and runs rounds until they are back.
func (x *rounds) run(op uint32, n int, sector func() uint64) {
	x.add(op, n, sector)
	for back := 0; back < n; {
		x.w.round()
		for _, _, ok := x.d.Reap(); ok; _, _, ok = x.d.Reap() {
			back++
		}
	}
}

// linearOverNull is a mapped device over one that stores nothing.
func linearOverNull(t testing.TB) blk.Device { return linearOver(t, "null", 1<<29) }

// linearOver is a mapped device over a disk of a number of bytes, null or in memory.
func linearOver(t testing.TB, disk string, bytes uint64) blk.Device {
	c := dm.NewControl(env.Real(), leaf.New(env.Real()), linear.Type())
	t.Cleanup(func() { c.Close() })
	d := must[*dm.Device](t)(c.Create("d", "", -1))
	specs := must[[]dm.Spec](t)(dm.ParseTable(fmt.Sprintf("0 %d linear %s:%d 0", bytes/blk.SectorSize, disk, bytes)))
	err := d.Load(specs, dm.Mode{Write: true})
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	return must[blk.Device](t)(d.Open(true))
}

// Nothing is allocated for a request. (Under the race detector a sync.Pool drops things on
// purpose.)
func TestRoundsDoNotAllocate(t *testing.T) {
	for _, packed := range []bool{false, true} {
		x := newRounds(t, linearOverNull(t), packed)
		for op := range uint32(2) {
			round := func() { x.run(op, 32, func() uint64 { return 0 }) }
			round()
			if n := testing.AllocsPerRun(100, round); n >= 1 && !invariants.Enabled {
				t.Errorf("type %d, packed %v: %v allocations for 32 requests", op, packed, n)
			}
		}
	}
}

// watched tells of each bio before it has it.
type watched struct {
	blk.Device
	submitting func()
}

func (w *watched) Submit(b *blk.Bio) {
	w.submitting()
	w.Device.Submit(b)
}

// The driver sees answers while the worker is at the rest of its batch: after 8 requests, or
// after 16 if the last batch was full.
func TestAnswersAreShownEarly(t *testing.T) {
	for _, packed := range []bool{false, true} {
		for op := range uint32(2) {
			d := &watched{Device: linearOverNull(t)}
			x := newRounds(t, d, packed)
			back, submitted := 0, 0
			reap := func() {
				for _, _, ok := x.d.Reap(); ok; _, _, ok = x.d.Reap() {
					back++
				}
			}
			for _, batch := range []struct{ n, each int }{{1, 8}, {batch, 8}, {batch, 16}, {24, 16}, {16, 8}} {
				back, submitted = 0, 0
				d.submitting = func() {
					reap()
					if want := submitted / batch.each * batch.each; back != want {
						t.Errorf("type %d, packed %v, %d requests: %d are back before number %d, want %d", op, packed, batch.n, back, submitted, want)
					}
					submitted++
				}
				x.add(op, batch.n, func() uint64 { return 0 })
				x.w.round()
				if reap(); back != batch.n {
					t.Errorf("type %d, packed %v: %d of %d requests are back", op, packed, back, batch.n)
				}
			}
		}
	}
}

func BenchmarkRound(b *testing.B) {
	for _, packed := range []bool{false, true} {
		for op, name := range []string{"read", "write"} {
			b.Run(fmt.Sprintf("%s packed=%v", name, packed), func(b *testing.B) {
				x := newRounds(b, linearOverNull(b), packed)
				r := rand.New(rand.NewPCG(1, 2))
				b.ReportAllocs()
				before := cpuTime()
				for i := 0; i < b.N; i += 32 {
					x.run(uint32(op), 32, func() uint64 { return r.Uint64N(1<<17) * 8 })
				}
				b.ReportMetric((cpuTime()-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

// BenchmarkRoundMemory reads blocks from memory that fits into a processor's cache, and from
// memory that does not: the difference is the price of the copy alone.
func BenchmarkRoundMemory(b *testing.B) {
	for _, blocks := range []uint64{1 << 10, 1 << 16} {
		b.Run(fmt.Sprintf("%d MiB", blocks*4>>10), func(b *testing.B) {
			x, next := newRounds(b, linearOver(b, "mem", blocks*4096), false), uint64(0)
			for range blocks / 32 {
				x.run(typeOut, 32, func() uint64 { next++; return (next - 1) * 8 })
			}
			r := rand.New(rand.NewPCG(1, 2))
			b.ResetTimer()
			before := cpuTime()
			for i := 0; i < b.N; i += 32 {
				x.run(typeIn, 32, func() uint64 { return r.Uint64N(blocks) * 8 })
			}
			b.ReportMetric((cpuTime()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// cpuTime is the processor time of this process in nanoseconds: others may be busy.
func cpuTime() float64 {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano() + u.Stime.Nano())
}
