package dm

import (
	"slices"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
)

// load is a client that keeps a number of bios in flight.
type load struct {
	r     *rig
	dev   blk.Device
	op    blk.Op
	bytes uint64
	ended int
	stop  bool
}

func (r *rig) client(d *Device, op blk.Op, bytes uint64, depth int) *load {
	r.t.Helper()
	h, err := d.Open(true)
	r.must(err)
	r.t.Cleanup(func() { r.must(h.Close()) })
	l := &load{r: r, dev: h, op: op, bytes: bytes}
	for range depth {
		l.submit()
	}
	r.sim.Run()
	return l
}

func (l *load) submit() {
	b := &blk.Bio{Op: l.op}
	b.SetData(make([]byte, l.bytes))
	b.End = func(b *blk.Bio) {
		if b.Status() != blk.OK {
			l.r.t.Errorf("a bio ended with %v", b.Status())
		}
		l.ended++
		if !l.stop {
			l.submit()
		}
	}
	l.dev.Submit(b)
}

// finish stops the client and lets the bios that wait through.
func (l *load) finish(ts ...*Throttle) {
	l.stop = true
	for _, t := range ts {
		t.Set(Rates{})
	}
	l.r.sim.Run()
}

func (r *rig) throttled(name, gate string, ts ...*Throttle) *Device {
	d := r.device(name, "0 1024 shift "+gate)
	r.gate(gate).Open()
	d.Throttle(ts...)
	return d
}

func (r *rig) throttle(rates Rates) *Throttle {
	t := NewThrottle(r.sim)
	t.Set(rates)
	r.t.Cleanup(t.Close)
	return t
}

// TestLimits checks that exactly one burst plus ten times the rate pass in ten seconds.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		rates Rates
		op    blk.Op
		bytes uint64
		first int // at once
		all   int // after ten seconds
	}{
		"iops":         {Rates{Write: Rate{IOs: Bucket{100, 50}}}, blk.Write, 4096, 50, 1050},
		"default":      {Rates{Read: Rate{IOs: Bucket{PerSecond: 100}}}, blk.Read, 4096, 10, 1010},
		"bytes":        {Rates{Read: Rate{Bytes: Bucket{1 << 20, 1 << 16}}}, blk.Read, 4096, 16, 16 + 2560},
		"odd":          {Rates{Read: Rate{IOs: Bucket{7, 3}}}, blk.Read, 512, 3, 73},
		"large":        {Rates{Write: Rate{Bytes: Bucket{1 << 17, 4096}}}, blk.Write, 1 << 16, 1, 21}, // each more than the burst
		"the stricter": {Rates{Read: Rate{IOs: Bucket{1000, 100}, Bytes: Bucket{40960, 8192}}}, blk.Read, 4096, 2, 102},
		"other side":   {Rates{Write: Rate{IOs: Bucket{1, 1}}}, blk.Read, 512, -1, -1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			th := r.throttle(c.rates)
			d := r.throttled("d", "g0", th)
			if c.all < 0 {
				r.read1(d)
				return
			}
			l := r.client(d, c.op, c.bytes, 64)
			if l.ended != c.first {
				t.Errorf("%d pass at once, want %d", l.ended, c.first)
			}
			r.sim.Advance(10 * time.Second)
			if l.ended < c.all-1 || l.ended > c.all {
				t.Errorf("%d pass in ten seconds, want %d", l.ended, c.all)
			}
			l.finish(th)
		})
	}
}

// read1 submits a read through a handle.
func (r *rig) read1(d *Device) {
	r.t.Helper()
	h, err := d.Open(false)
	r.must(err)
	for range 100 {
		x := &io{}
		x.Op, x.Sectors = blk.Read, 8
		x.data = blktest.Pattern(0, 8, 1)
		x.SetData(x.data)
		x.End = func(*blk.Bio) { x.ends++ }
		h.Submit(&x.Bio)
		r.sim.Run()
		r.ended(x, blk.OK)
	}
	r.must(h.Close())
}

// TestGroupIsFair checks that the devices of a group get equal shares, whatever they request,
// and that a device's own limit applies as well.
func TestGroupIsFair(t *testing.T) {
	r := newRig(t)
	group := r.throttle(Rates{Write: Rate{IOs: Bucket{300, 3}}})
	own := r.throttle(Rates{Write: Rate{IOs: Bucket{20, 1}}})
	greedy := r.client(r.throttled("greedy", "g0", group), blk.Write, 512, 200)
	polite := r.client(r.throttled("polite", "g1", group), blk.Write, 512, 1)
	slow := r.client(r.throttled("slow", "g2", own, group), blk.Write, 512, 50)
	r.sim.Advance(10 * time.Second)
	if sum := greedy.ended + polite.ended + slow.ended; sum < 2990 || sum > 3010 {
		t.Errorf("%d pass in ten seconds", sum)
	}
	if slow.ended < 195 || slow.ended > 205 {
		t.Errorf("the slow one has %d", slow.ended)
	}
	if polite.ended < 1300 || polite.ended > 1500 {
		t.Errorf("the polite one has %d, the greedy one %d", polite.ended, greedy.ended)
	}
	for _, l := range []*load{greedy, polite, slow} {
		l.stop = true
	}
	slow.finish(own, group)
}

// TestFairBytes checks that devices share the scarce resource equally, here bytes.
func TestFairBytes(t *testing.T) {
	r := newRig(t)
	group := r.throttle(Rates{Read: Rate{Bytes: Bucket{PerSecond: 1 << 20}}})
	large := r.client(r.throttled("large", "g0", group), blk.Read, 1<<16, 16)
	small := r.client(r.throttled("small", "g1", group), blk.Read, 1<<12, 32)
	r.sim.Advance(10 * time.Second)
	a, b := large.ended<<16, small.ended<<12
	if a+b < 10<<20 || a+b > 11<<20 || a > b*11/10+1<<16 || b > a*11/10+1<<16 {
		t.Errorf("%d and %d bytes", a, b)
	}
	small.stop = true
	large.finish(group)
}

// TestLimitsChange changes rates while bios wait. A suspend does not wait for them, flushes
// pass, and NoWait bios fail.
func TestLimitsChange(t *testing.T) {
	r := newRig(t)
	th := r.throttle(Rates{Write: Rate{IOs: Bucket{1, 1}}})
	d := r.throttled("d", "g0", th)
	l := r.client(d, blk.Write, 512, 8)
	if l.ended != 1 {
		t.Errorf("%d have passed", l.ended)
	}
	r.must(d.Suspend(ctx, false)) // the simulator would tell if it waited
	th.Set(Rates{Write: Rate{IOs: Bucket{2, 2}}})
	r.must(d.Resume(ctx, false))
	r.sim.Run()
	if l.ended != 3 {
		t.Errorf("%d have passed after the change", l.ended)
	}
	h, err := d.Open(true)
	r.must(err)
	for _, c := range []struct {
		op    blk.Op
		flags blk.Flags
		want  blk.Status
	}{{blk.Flush, 0, blk.OK}, {blk.Write, blk.NoWait, blk.WouldBlock}} {
		x := &io{}
		x.Op, x.Flags = c.op, c.flags
		if c.op == blk.Write {
			x.SetData(make([]byte, 512))
		}
		x.End = func(*blk.Bio) { x.ends++ }
		h.Submit(&x.Bio)
		r.sim.Run()
		r.ended(x, c.want)
	}
	r.must(h.Close())
	d.Throttle() // what waits goes on waiting, what comes does not
	before := l.ended
	l.stop = true
	r.sim.Advance(time.Second)
	if l.ended != before+2 {
		t.Errorf("%d pass in a second", l.ended-before)
	}
	l.finish(th)
	if l.ended != before+8 {
		t.Errorf("%d of %d have ended", l.ended, before+8)
	}
}

// TestLimitedBarrier checks that a barrier overtakes nothing that waits for a limit, whatever
// queue that waits in, and that nothing overtakes it.
func TestLimitedBarrier(t *testing.T) {
	r := newRig(t)
	th := r.throttle(Rates{Read: Rate{IOs: Bucket{1, 1}}})
	d := r.throttled("d", "g0", th)
	h, err := d.Open(true)
	r.must(err)
	var order []string
	submit := func(name string, op blk.Op, flags blk.Flags) {
		b := &blk.Bio{Op: op, Flags: flags}
		if op != blk.Flush {
			b.SetData(make([]byte, 512))
		}
		b.End = func(*blk.Bio) { order = append(order, name) }
		h.Submit(b)
		r.sim.Run()
	}
	submit("read 1", blk.Read, 0)
	submit("read 2", blk.Read, 0)
	submit("write 1", blk.Write, 0)
	submit("barrier 1", blk.Write, blk.Barrier)
	submit("write 2", blk.Write, 0)
	submit("flush", blk.Flush, 0)
	submit("read 3", blk.Read, 0)
	submit("barrier 2", blk.Read, blk.Barrier)
	submit("barrier 3", blk.Flush, blk.Barrier)
	submit("write 3", blk.Write, 0)
	r.sim.Advance(10 * time.Second)
	want := []string{"read 1", "write 1", "read 2", "barrier 1", "write 2", "flush", "read 3", "barrier 2", "barrier 3", "write 3"}
	if !slices.Equal(order, want) {
		t.Errorf("they end in the order\n%q\nwant\n%q", order, want)
	}
	r.must(h.Close())
}
