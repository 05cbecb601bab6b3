package delay_test

import (
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/delay"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{delay.Type(), linear.Type()}

const ms = time.Millisecond

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 4096 delay a 3 0 a 3 1 a 3 0")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 delay a 0 0", "0 5000 linear /dev/dm-0 7", "0 4096 delay /dev/dm-1 9 0 /dev/dm-1 9 0 /dev/dm-1 9 1")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 delay => EINVAL Requires exactly 3, 6 or 9 arguments
		0 64 delay a 0 => EINVAL Requires exactly 3, 6 or 9 arguments
		0 64 delay a 0 1 b => EINVAL Requires exactly 3, 6 or 9 arguments
		0 64 delay a 0 1 b 0 => EINVAL Requires exactly 3, 6 or 9 arguments
		0 64 delay a 0 1 b 0 1 c => EINVAL Requires exactly 3, 6 or 9 arguments
		0 64 delay a 0 1 b 0 1 c 0 1 7 => EINVAL Requires exactly 3, 6 or 9 arguments
		0 64 delay a q 1 => EINVAL Invalid device sector
		0 64 delay a +1 1 => EINVAL Invalid device sector
		0 64 delay a 0 q => EINVAL Invalid delay
		0 64 delay a 0 -1 => EINVAL Invalid delay
		0 64 delay a 0 1q => EINVAL Invalid delay
		0 64 delay a 0 1 b q 1 => EINVAL Invalid device sector
		0 64 delay a 0 1 b 0 q => EINVAL Invalid delay
		0 64 delay a 0 1 b 0 1 c q 1 => EINVAL Invalid device sector
		0 64 delay a 0 1 b 0 1 c 0 q => EINVAL Invalid delay
		0 64 delay /none 0 1 => ENODEV Device lookup failed
		0 64 delay a 0 1 /none 0 1 => ENODEV Device lookup failed
		0 64 delay a 16380 1 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
		0 64 delay a 0 1 b 16380 1 => EINVAL 7:1 too small for target: start=16380, len=64, dev_size=16384
	`)
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 delay a 8 300")
	r.Lines(d, dm.Info, "0 64 delay 0 0 0")
	r.Lines(d, dm.TableText, "0 64 delay 7:0 8 300")
	r.Swap(d, "0 64 delay a 0 0 b 16 300")
	r.Lines(d, dm.TableText, "0 64 delay 7:0 0 0 7:1 16 300")
	r.Swap(d, "0 64 delay a 0 300 b 0 0 c 0 4294967296")
	r.Lines(d, dm.TableText, "0 64 delay 7:0 0 300 7:1 0 0 7:2 0 0")
	r.Message(d, "hello", "", syscall.EINVAL)
}

func TestEachKindWaitsItsTime(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 linear a 1000\n64 64 delay a 0 10 b 16 20 c 0 30")
	write := r.Submit(d, blk.Write, blk.FUA, 64, 8, 5)
	discard := r.Submit(d, blk.Discard, 0, 80, 8, 0)
	r.Sim.Advance(5 * ms)
	read := r.Submit(d, blk.Read, 0, 66, 1, 1)
	flush := r.Submit(d, blk.Flush, 0, 0, 0, 0)
	r.Lines(d, dm.Info, "0 64 linear \n64 64 delay 1 2 1")
	r.Sim.Advance(10*ms - 1)
	r.Held(read)
	r.Sim.Advance(1)
	r.Done(read, blk.OK)
	r.Held(write)
	r.Sim.Advance(5*ms - 1)
	r.Held(write)
	r.Lines(d, dm.Info, "0 64 linear \n64 64 delay 0 2 1")
	r.Sim.Advance(1)
	r.Done(write, blk.OK)
	r.Done(discard, blk.OK)
	r.Sim.Advance(14 * ms)
	r.Held(flush)
	r.Sim.Advance(1 * ms)
	r.Done(flush, blk.OK)
	r.Lines(d, dm.Info, "0 64 linear \n64 64 delay 0 0 0")
	r.Trace("a", "flush 1000+0\nread 2+1\n")
	r.Trace("b", "write 16+8 fua\ndiscard 32+8\n")
	r.Trace("c", "flush 0+0\n")
	r.WantDisk("b", 16, 8, 64, 5)
	if n := r.Sim.Pending(); n != 0 {
		t.Errorf("%d timers are armed with nothing to wait for", n)
	}
}

func TestSuspendLetsAllGo(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 delay a 0 0 b 0 5000")
	w := r.Submit(d, blk.Write, 0, 0, 8, 5)
	r.Held(w)
	r.Lines(d, dm.Info, "0 64 delay 0 1 0")
	r.Suspend(d, false)
	r.Done(w, blk.OK)
	r.Lines(d, dm.Info, "0 64 delay 0 0 0")
	r.Resume(d)
	w = r.Submit(d, blk.Write, 0, 0, 8, 6)
	r.Sim.Advance(4999 * ms)
	r.Held(w)
	r.Sim.Advance(1 * ms)
	r.Done(w, blk.OK)
}

// late is a target whose Presuspend, which runs behind delay's, reads sector 0.
type late struct {
	r *targettest.Rig
	t *dm.Target
	x *targettest.IO
}

func (l *late) Map(*dm.Clone) dm.Outcome { return dm.Kill }
func (l *late) Close()                   {}
func (l *late) Presuspend()              { l.x = l.r.Submit(l.t.Device(), blk.Read, 0, 0, 8, 1) }

// TestSuspendIssuesWhatComesLate: between presuspend and the end of the drain
// nothing waits, or the suspend would.
func TestSuspendIssuesWhatComesLate(t *testing.T) {
	var r *targettest.Rig
	var l *late
	r = targettest.New(t, append(types, &dm.Type{Name: "late", New: func(t *dm.Target, _ []string) (dm.Mapper, error) {
		l = &late{r: r, t: t}
		return l, nil
	}}))
	d := r.Device("x", "0 64 delay a 0 5000\n64 1 late")
	r.Gate("a").Shut()
	first := r.Submit(d, blk.Read, 0, 8, 8, 1)
	done := false
	r.Sim.Go("suspend", func() { r.Suspend(d, true); done = true })
	r.Sim.Run()
	if n := len(r.Gate("a").Held()); n != 2 || done {
		t.Fatalf("presuspend issued %d of two reads, or the suspend did not wait for them", n)
	}
	r.Gate("a").Open()
	r.Sim.Run()
	r.Done(first, blk.OK)
	r.Done(l.x, blk.OK)
	if !done {
		t.Fatal("the suspend still waits")
	}
	r.Resume(d)
}

// TestStats: what waits is not in flight, but its time counts.
func TestStats(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 delay a 0 1000")
	r.Gate("a").Shut()
	r.Message(d, "@stats_create - 64 1 histogram:500,1200", "0", 0)
	read := r.Submit(d, blk.Read, 0, 3, 1, 1)
	r.Sim.Advance(500 * ms)
	r.Message(d, "@stats_print 0", "0+64 0 0 0 0 0 0 0 0 0 0 0 0 0 0:0:0\n", 0)
	r.Sim.Advance(500 * ms)
	r.Message(d, "@stats_print 0", "0+64 0 0 0 0 0 0 0 0 1 0 0 0 0 0:0:0\n", 0)
	r.Sim.Advance(100 * ms)
	r.Gate("a").Open()
	r.Done(read, blk.OK)
	r.Message(d, "@stats_print 0", "0+64 1 0 1 1100 0 0 0 0 0 100 100 100 0 0:1:0\n", 0)
}
