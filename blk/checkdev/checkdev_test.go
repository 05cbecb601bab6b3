package checkdev_test

import (
	"math"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/blk/nulldev"
	"udm/env"
	"udm/internal/invariants"
)

func bio(op blk.Op, sector, sectors uint64, f blk.Flags) *blk.Bio {
	b := &blk.Bio{Op: op, Sector: sector, Flags: f}
	if op.HasData() && sectors < 1<<20 {
		b.SetData(blktest.Pattern(sector, sectors, 1))
	}
	b.Sectors = sectors
	return b
}

func TestValidation(t *testing.T) {
	e := env.Real()
	tune := func(l *blk.Limits) { l.LogicalBlock = 1024 }
	short := bio(blk.Write, 0, 2, 0)
	short.Sectors = 4
	for _, c := range []struct {
		name string
		b    *blk.Bio
		want blk.Status
	}{
		{"last block", bio(blk.Read, 62, 2, 0), blk.OK},
		{"beyond the end", bio(blk.Read, 62, 4, 0), blk.Invalid},
		{"at the end", bio(blk.Write, 64, 2, 0), blk.Invalid},
		{"overflow", bio(blk.Discard, 2, math.MaxUint64-1, 0), blk.Invalid},
		{"start unaligned", bio(blk.Read, 1, 2, 0), blk.Invalid},
		{"length unaligned", bio(blk.WriteZeroes, 2, 1, 0), blk.Invalid},
		{"short buffers", short, blk.Invalid},
		{"fua read", bio(blk.Read, 0, 2, blk.FUA), blk.Invalid},
		{"no-unmap write", bio(blk.Write, 0, 2, blk.NoUnmap), blk.Invalid},
		{"unstable read", bio(blk.Read, 0, 2, blk.Unstable), blk.Invalid},
		{"flush with a length", bio(blk.Flush, 0, 2, 0), blk.Invalid},
		{"unknown flag", bio(blk.Write, 0, 2, 1<<15), blk.Invalid},
		{"unknown op", bio(9, 0, 2, 0), blk.NotSupported},
		{"empty read", bio(blk.Read, 64, 0, 0), blk.OK},
		{"empty write behind the end", bio(blk.Write, 66, 0, 0), blk.Invalid},
		{"nowait", bio(blk.Read, 0, 2, blk.NoWait), blk.OK},
	} {
		g := blktest.NewGate(e, memdev.New(64, memdev.Tune(tune)))
		g.Open()
		if st := blk.Do(e, checkdev.New(g, checkdev.Options{}), c.b); st != c.want {
			t.Errorf("%s: %v, want %v", c.name, st, c.want)
		}
		if n := len(g.Submitted()); n > 0 && c.want != blk.OK {
			t.Errorf("%s: %d bios reached the device", c.name, n)
		}
	}
}

func TestAbilitiesOfTheDevice(t *testing.T) {
	e := env.Real()
	poor := memdev.New(64, memdev.Tune(func(l *blk.Limits) {
		*l = blk.DefaultLimits(l.Size)
		l.ReadOnly = true
	}))
	d := checkdev.New(poor, checkdev.Options{})
	for _, c := range []struct {
		b    *blk.Bio
		want blk.Status
	}{
		{bio(blk.Write, 0, 1, 0), blk.ReadOnly},
		{bio(blk.WriteZeroes, 0, 1, 0), blk.ReadOnly},
		{bio(blk.Flush, 0, 0, 0), blk.OK},
		{bio(blk.Read, 0, 1, blk.NoWait), blk.NotSupported},
	} {
		if st := blk.Do(e, d, c.b); st != c.want {
			t.Errorf("%v: %v, want %v", c.b, st, c.want)
		}
	}
	poor.SetReadOnly(false)
	if st := blk.Do(e, d, bio(blk.Discard, 0, 1, 0)); st != blk.NotSupported {
		t.Errorf("discard: %v", st)
	}
	if st := blk.Do(e, d, bio(blk.WriteZeroes, 0, 1, blk.FastZero)); st != blk.NotSupported {
		t.Errorf("fast zero: %v", st)
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if st := blk.Do(e, d, bio(blk.Read, 0, 1, 0)); st != blk.Offline {
		t.Errorf("after close: %v", st)
	}
}

// Checks each emulation as the device below sees it.
func TestEmulation(t *testing.T) {
	for _, c := range []struct {
		name string
		b    *blk.Bio
		tune func(*blk.Limits)
		want string
	}{
		{"native", bio(blk.Write, 0, 8, blk.FUA|blk.Preflush), nil, "write 0+8 fua,preflush"},
		{"fua to flush", bio(blk.Write, 0, 8, blk.FUA), func(l *blk.Limits) { l.FUA = false }, "write 0+8; flush 0+0"},
		{"fua dropped", bio(blk.Write, 0, 8, blk.FUA), func(l *blk.Limits) { l.FUA, l.VolatileCache = false, false }, "write 0+8"},
		{"flush without a cache", bio(blk.Flush, 0, 0, 0), func(l *blk.Limits) { l.VolatileCache = false }, ""},
		{"split", bio(blk.Read, 3, 20, 0), func(l *blk.Limits) { l.MaxSectors = 8 }, "read 3+8; read 11+8; read 19+4"},
		{"split with preflush", bio(blk.Write, 0, 12, blk.FUA|blk.Preflush), func(l *blk.Limits) { l.MaxSectors, l.FUA = 8, false },
			"flush 0+0; write 0+8; write 8+4; flush 0+0"},
		{"split to whole blocks", bio(blk.Write, 0, 16, 0), func(l *blk.Limits) { l.MaxSectors, l.LogicalBlock = 7, 2048 },
			"write 0+4; write 4+4; write 8+4; write 12+4"},
		{"discard at borders", bio(blk.Discard, 3, 30, 0), func(l *blk.Limits) { l.MaxDiscard, l.DiscardGranularity = 12, 4096 },
			"discard 3+5; discard 8+8; discard 16+8; discard 24+9"},
		{"long zeroes", bio(blk.WriteZeroes, 0, 20, blk.NoUnmap), func(l *blk.Limits) { l.MaxWriteZeroes = 16 },
			"write-zeroes 0+16 nounmap; write-zeroes 16+4 nounmap"},
		{"zeroes written", bio(blk.WriteZeroes, 5, 5000, blk.NoUnmap|blk.FUA), func(l *blk.Limits) { l.MaxWriteZeroes = 0 },
			"write 5+2048 fua; write 2053+2048 fua; write 4101+904 fua"},
		{"zeroes written in small pieces", bio(blk.WriteZeroes, 0, 20, blk.FUA), func(l *blk.Limits) { l.MaxWriteZeroes, l.MaxSectors, l.FUA = 0, 8, false },
			"write 0+8; write 8+8; write 16+4; flush 0+0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := env.NewStepped()
			d := memdev.New(8192, memdev.Volatile, memdev.Tune(orNone(c.tune)))
			blk.WriteSectors(s, d, blktest.Pattern(0, 8192, 2), 0, 0)
			g := blktest.NewGate(s, d)
			g.Open()
			want := blktest.Pattern(c.b.Sector, c.b.Sectors, 1)
			if st := blk.Do(s, checkdev.New(g, checkdev.Options{}), c.b); st != blk.OK {
				t.Fatal(st)
			}
			if got := strings.ReplaceAll(strings.TrimSpace(g.Trace()), "\n", "; "); got != c.want {
				t.Fatalf("device saw %s\nwant %s", got, c.want)
			}
			checkContent(t, s, d, c.b, want)
		})
	}
}

func orNone(f func(*blk.Limits)) func(*blk.Limits) {
	if f == nil {
		return func(*blk.Limits) {}
	}
	return f
}

func checkContent(t *testing.T, e env.Env, d blk.Device, b *blk.Bio, want []byte) {
	seed := map[blk.Op]uint64{blk.Read: 2, blk.Write: 1}[b.Op]
	at := want
	if b.Op == blk.Read {
		at = b.Bufs[0]
	} else if err := blk.ReadSectors(e, d, at, b.Sector); err != nil {
		t.Fatal(err)
	}
	if len(at) > 0 {
		if err := blktest.Check(at, b.Sector, seed); err != nil {
			t.Fatal(err)
		}
	}
}

// A flush that has nothing to do does not overtake a barrier that still waits below.
func TestFlushBehindABarrier(t *testing.T) {
	s := env.NewStepped()
	g := blktest.NewGate(s, memdev.New(64, memdev.Tune(func(l *blk.Limits) { l.VolatileCache = false })))
	d := checkdev.New(g, checkdev.Options{})
	ended := ""
	submit := func(name string, b *blk.Bio) {
		b.End = func(b *blk.Bio) { ended += name + " " + b.Status().String() + "; " }
		d.Submit(b)
	}
	submit("barrier", bio(blk.Write, 0, 8, blk.Barrier))
	submit("flush", bio(blk.Flush, 0, 0, 0))
	if ended != "" {
		t.Fatalf("ended: %s", ended)
	}
	g.ReleaseAll()
	submit("later flush", bio(blk.Flush, 0, 0, 0))
	ok := blk.OK.String()
	if want := "barrier " + ok + "; flush " + ok + "; later flush " + ok + "; "; ended != want {
		t.Errorf("ended: %s", ended)
	}
	if want := "write 0+8 barrier\nflush 0+0\n"; g.Trace() != want {
		t.Errorf("device saw %s", g.Trace())
	}
}

func TestPreflushOption(t *testing.T) {
	e := env.Real()
	for _, cached := range []bool{true, false} {
		g := blktest.NewGate(e, memdev.New(64, memdev.Tune(func(l *blk.Limits) { l.VolatileCache = cached })))
		g.Open()
		d := checkdev.New(g, checkdev.Options{Preflush: true})
		blk.Do(e, d, bio(blk.Write, 0, 8, blk.Preflush|blk.FUA))
		blk.Do(e, d, bio(blk.Write, 0, 0, blk.Preflush))
		want := "write 0+8 fua\n"
		if cached {
			want = "flush 0+0\nwrite 0+8 fua\nflush 0+0\n"
		}
		if g.Trace() != want {
			t.Errorf("cached %v: %q", cached, g.Trace())
		}
	}
}

// The stages wait for one another, parts are bounded, and a failure stops all.
func TestOrderUnderTheGate(t *testing.T) {
	s := env.NewStepped()
	g := blktest.NewGate(s, memdev.New(640, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.MaxSectors, l.FUA = 8, false })))
	d := checkdev.New(g, checkdev.Options{})
	run := func(fail int) (string, blk.Status, bool) {
		b, ended := bio(blk.Write, 0, 80, blk.FUA|blk.Preflush), false
		b.End = func(*blk.Bio) { ended = true }
		d.Submit(b)
		var groups []string
		for i := 0; len(g.Held()) > 0; i++ {
			groups = append(groups, g.Held()[0].Op.String()+strings.Repeat("+", len(g.Held())-1))
			for n, r := range g.Held() {
				if i == fail && n == 0 {
					g.Fail(r.Index, blk.NoSpace)
				} else {
					g.Release(r.Index)
				}
			}
		}
		return strings.Join(groups, " "), b.Status(), ended
	}
	const all = "flush write+++ write+++ write+ flush"
	for fail, want := range map[int]string{
		-1: all, 0: "flush", 1: "flush write+++", 2: "flush write+++ write+++", 3: "flush write+++ write+++ write+", 4: all,
	} {
		got, st, ended := run(fail)
		if got != want || !ended || (st == blk.NoSpace) != (fail >= 0) {
			t.Errorf("failure in group %d: %q, %v, ended %v; want %q", fail, got, st, ended, want)
		}
	}
	b := bio(blk.Write, 0, 80, blk.NoWait)
	if st := blk.Do(s, d, b); st != blk.WouldBlock {
		t.Errorf("nowait bio that needs parts: %v", st)
	}
}

// bad is a device that breaks the contract.
type bad struct {
	*nulldev.Device
	submit func(*blk.Bio)
}

func (d *bad) Submit(b *blk.Bio) { d.submit(b) }

func TestInvariantsCatchBadDevices(t *testing.T) {
	if !invariants.Enabled {
		return // nothing to see in a build without them
	}
	for name, submit := range map[string]func(*blk.Bio){
		"completed twice": func(b *blk.Bio) { b.Complete(blk.OK); b.Complete(blk.OK) },
		"changed while":   func(b *blk.Bio) { b.Bufs[0][5]++; b.Complete(blk.OK) },
	} {
		d := checkdev.New(&bad{nulldev.New(64), submit}, checkdev.Options{})
		b := bio(blk.Write, 0, 8, 0)
		b.End = (*blk.Bio).Rearm // a submitter that uses the bio again at once
		if r := recovered(func() { d.Submit(b) }); r == nil || !strings.Contains(r.(string), name) {
			t.Errorf("%s: %v", name, r)
		}
	}
	d := checkdev.New(&bad{nulldev.New(64), func(b *blk.Bio) { b.Complete(blk.IOErr) }}, checkdev.Options{})
	b := bio(blk.Read, 0, 8, 0)
	if blk.Do(env.Real(), d, b) != blk.IOErr || blktest.Check(b.Bufs[0], 0, 1) == nil {
		t.Error("a failed read left the buffer as it was")
	}
}

// data records where the data of writes lies and lets the client change it.
type data struct {
	*memdev.Device
	shared []byte
	same   bool // the data is the client's own memory
}

func (d *data) Submit(b *blk.Bio) {
	if b.Op == blk.Write {
		p, _ := b.Contiguous()
		d.same = &p[0] == &d.shared[(b.Sector-8)*blk.SectorSize]
		for i := range d.shared {
			d.shared[i]++
		}
	}
	d.Device.Submit(b)
}

// Data that a client may change is copied only if the device needs stable data,
// in pieces that are each read once.
func TestUnstableWrites(t *testing.T) {
	const sectors = 2048
	for _, c := range []struct {
		stable   bool
		flags    blk.Flags
		copied   bool
		contents uint64 // seed of the first sector as it is read afterwards
	}{{true, blk.Unstable, true, 1}, {false, blk.Unstable, false, 0}, {true, blk.Unstable | blk.FUA, true, 1}} {
		low := &data{Device: memdev.New(4096, memdev.Tune(func(l *blk.Limits) { l.StableWrites = c.stable })), shared: blktest.Pattern(8, sectors, 1)}
		d := checkdev.New(low, checkdev.Options{})
		if d.Limits().StableWrites != c.stable {
			t.Error("StableWrites is not passed on")
		}
		if err := blk.WriteSectors(env.Real(), d, low.shared, 8, c.flags); err != nil || low.same == c.copied {
			t.Errorf("%+v: %v, the client's memory %v", c, err, low.same)
		}
		got := make([]byte, blk.SectorSize)
		blk.ReadSectors(env.Real(), d, got, 8)
		if (blktest.Check(got, 8, 1) == nil) != c.copied {
			t.Errorf("%+v: what was written is not what was there at the time", c)
		}
	}
}

func recovered(f func()) (r any) {
	defer func() { r = recover() }()
	f()
	return nil
}

func allocs(t *testing.T, d blk.Device, op blk.Op, f blk.Flags) float64 {
	p := make([]byte, 8192)
	b := &blk.Bio{End: func(*blk.Bio) {}}
	return testing.AllocsPerRun(100, func() {
		b.Rearm()
		b.Op, b.Flags, b.Sector = op, f, 0
		b.SetData(p)
		d.Submit(b)
	})
}

func TestPassThroughDoesNotAllocate(t *testing.T) {
	if invariants.Enabled {
		return // the watch allocates
	}
	d := checkdev.New(nulldev.New(64), checkdev.Options{})
	split := checkdev.New(nulldev.New(64, nulldev.Tune(func(l *blk.Limits) { l.MaxSectors, l.FUA = 4, false })), checkdev.Options{})
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		if n := allocs(t, d, op, 0); n != 0 {
			t.Errorf("%v: %v allocations", op, n)
		}
		if n := allocs(t, split, op, 0); n != 0 {
			t.Errorf("split %v: %v allocations", op, n)
		}
	}
}

func BenchmarkPassThrough4K(b *testing.B) { benchmark(b, 0) }
func BenchmarkSplit4K(b *testing.B)       { benchmark(b, 4) }

func benchmark(b *testing.B, max uint32) {
	d := checkdev.New(nulldev.New(64, nulldev.Tune(func(l *blk.Limits) { l.MaxSectors = max })), checkdev.Options{})
	p := make([]byte, 4096)
	bio := &blk.Bio{End: func(*blk.Bio) {}}
	b.ReportAllocs()
	for b.Loop() {
		bio.Rearm()
		bio.Sector = 0
		bio.SetData(p)
		d.Submit(bio)
	}
}
