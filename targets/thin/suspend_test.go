package thin

import (
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
)

// background starts fn, which may wait, and runs all that is ready.
func (r *rig) background(name string, fn func()) (done func() bool) {
	ended := false
	r.Sim.Go(name, func() {
		fn()
		ended = true
	})
	r.Sim.Run()
	return func() bool { return ended }
}

func TestPoolSuspendHoldsItsThinsBack(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d, e := r.thin(0, 64), r.thin(1, 64)
	r.Write(d, 0, 8, 1)
	r.Gate("d").Shut()
	under := r.Submit(d, blk.Write, 0, 0, 8, 2)
	done := r.background("suspend", func() { r.Suspend(r.pool, false) })
	late := []*ioT{r.Submit(d, blk.Write, 0, 8, 8, 3)}
	if done() {
		t.Fatal("suspended while a write is under way")
	}
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(under, blk.OK)
	if !done() {
		t.Fatal("not suspended")
	}
	late = append(late, r.Submit(e, blk.Write, 0, 0, 8, 4), r.Submit(d, blk.Flush, 0, 0, 0, 0))
	r.Gate("d").Forget()
	r.Gate("m").Forget()
	r.Sim.Advance(10 * time.Second)
	for _, x := range late {
		r.Held(x)
	}
	if n := len(r.Gate("d").Submitted()) + len(r.Gate("m").Submitted()); n != 0 {
		t.Fatalf("%d requests while suspended", n)
	}
	if s := d.Status(); s.Suspended || !s.InternallySuspended {
		t.Errorf("state %+v", s)
	}
	r.Resume(r.pool)
	r.Sim.Run()
	for _, x := range late {
		r.Done(x, blk.OK)
	}
	r.Want(d, 8, 8, 8, 3)
	r.Want(e, 0, 8, 0, 4)
}

// A noflush suspend pushes back bios that wait in cells or for space; they are
// submitted again afterwards.
func TestNoflushSuspendPushesBackWhatWaits(t *testing.T) {
	r, d := full(t)
	xs := []*ioT{
		r.Submit(d, blk.Write, 0, 1024, 8, 1),
		r.Submit(d, blk.Write, 0, 1032, 8, 2),
		r.Submit(d, blk.Write, blk.FUA, 2048, 8, 3),
	}
	r.mode("out_of_data_space", "queue_if_no_space")
	if done := r.background("suspend", func() { r.Suspend(d, true) }); !done() {
		t.Fatal("a noflush suspend waits for space")
	}
	for _, x := range xs {
		r.Held(x)
	}
	r.Disk("d").Resize(64 * bs)
	r.Swap(r.pool, poolTable(64))
	for _, x := range xs {
		r.Held(x)
	}
	r.Resume(d)
	r.Sim.Run()
	for i, x := range xs {
		r.Done(x, blk.OK)
		r.Want(d, x.Sector, 8, x.Sector, uint64(i+1))
	}
}

func TestFlushSuspendWaitsForSpace(t *testing.T) {
	r, d := full(t)
	x := r.Submit(d, blk.Write, 0, 1024, 8, 1)
	done := r.background("suspend", func() { r.Suspend(d, false) })
	if done() {
		t.Fatal("suspended with a write that waits")
	}
	r.Sim.Advance(61 * time.Second)
	r.Done(x, blk.NoSpace)
	if !done() {
		t.Fatal("not suspended")
	}
	r.Resume(d)
}

// A provision that is in progress when the volume is suspended without flushing is
// finished, and bios that wait behind it are served or pushed back, not lost.
func TestNoflushSuspendDuringAProvision(t *testing.T) {
	r, d, w1 := zeroing(t)
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	w3 := r.send(d, blk.Write, 0, 256, 8, 3)
	done := r.background("suspend", func() { r.Suspend(d, true) })
	if done() {
		t.Fatal("suspended during a provision")
	}
	w4 := r.send(d, blk.Write, 0, 16, 8, 4)
	r.Gate("d").Open()
	r.Sim.Run()
	if !done() {
		t.Fatal("not suspended")
	}
	r.Done(w1, blk.OK)
	r.Held(w4)
	r.Resume(d)
	r.Sim.Run()
	for i, w := range []*ioT{w1, w2, w3, w4} {
		r.Done(w, blk.OK)
		r.Want(d, w.Sector, 8, w.Sector, uint64(i+1))
	}
}

func TestPoolReloadKeepsThePool(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8, 1)
	p, _ := r.internals(d)
	for _, f := range [][]string{{"skip_block_zeroing"}, nil, {"error_if_no_space", "no_discard_passdown"}} {
		r.Swap(r.pool, poolTable(64, f...))
		if q := r.pool.Target(0).Mapper().(*poolTarget).pool; q != p {
			t.Fatal("another pool object")
		}
		r.Want(d, 0, 8, 0, 1)
		r.Write(d, bs, 8, 2)
		r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	}
	// A table that is loaded and discarded does not close the devices of the pool.
	specs, err := dm.ParseTable(poolTable(64))
	r.Must(err)
	r.Must(r.pool.Load(specs, dm.Mode{Write: true}))
	r.Must(r.pool.Load(specs, dm.Mode{Write: true}))
	r.pool.Clear()
	r.Write(d, 2*bs, 8, 2)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	// Nor does the reload of a thin device close its volume.
	r.Swap(d, "0 4096 thin /dev/mapper/pool 0\n4096 4096 thin /dev/mapper/pool 0")
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, 4096, 8, 0, 1)
}

func TestPoolSuspendTwice(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	for range 3 {
		r.Suspend(r.pool, true)
		r.Suspend(r.pool, false)
		x := r.Submit(d, blk.Write, 0, 0, 8, 1)
		r.Held(x)
		r.Resume(r.pool)
		r.Sim.Run()
		r.Done(x, blk.OK)
	}
	r.Suspend(d, false)
	r.Suspend(r.pool, false)
	r.Resume(r.pool)
	x := r.Submit(d, blk.Write, 0, 0, 8, 1)
	r.Held(x)
	r.Resume(d)
	r.Sim.Run()
	r.Done(x, blk.OK)
}

// A volume may be removed while its pool is suspended.
func TestThinRemovedWhileThePoolIsSuspended(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8, 1)
	r.Suspend(r.pool, false)
	r.Must(d.Close())
	r.Resume(r.pool)
	d = r.open(0, 64)
	r.Want(d, 0, 8, 0, 1)
}
