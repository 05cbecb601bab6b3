package dm

import (
	"sync"
	"testing"
	"time"

	"udm/blk"
	"udm/env"
)

// TestAccount checks the statistics by op, which start with the first query.
func TestAccount(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 script g0 8")
	r.gate("g0").Open()
	r.write(d, 0, 8)
	if a := d.Account(); a != (Account{}) {
		t.Errorf("counted before accounting was enabled: %+v", a)
	}
	r.c.Account()
	r.c.Account()
	r.write(d, 4, 8) // two pieces
	r.gate("g0").Shut()
	read := r.submit(d, blk.Read, 0, 0, 4)
	r.sim.Advance(3 * time.Millisecond)
	if a := d.Account(); a.InFlight != 1 || a.Ops[blk.Read].Count != 0 {
		t.Errorf("a read in flight: %+v", a)
	}
	r.release("g0")
	r.ended(read, blk.OK)
	r.gate("g0").Open()
	a := d.Account()
	if w := a.Ops[blk.Write]; w.Count != 2 || w.Sectors != 8 || w.Time != 0 || w.Buckets[0] != 2 {
		t.Errorf("writes: %+v", w)
	}
	if o := a.Ops[blk.Read]; o.Count != 1 || o.Sectors != 4 || o.Time != 3*time.Millisecond || o.Buckets[bucketOf(3*time.Millisecond)] != 1 || o.Failed != 0 {
		t.Errorf("reads: %+v", o)
	}
	if LatencyBounds[bucketOf(3*time.Millisecond)] != 1<<22 || bucketOf(time.Hour) != len(LatencyBounds) || bucketOf(1<<16) != 0 {
		t.Error("wrong buckets")
	}
}

// TestAccountOfFailures checks that refused I/O counts as failed, unsupported I/O does not, and
// pushed-back I/O counts once, when it ends.
func TestAccountOfFailures(t *testing.T) {
	r := newRig(t)
	r.c.Account()
	d := r.device("x", "0 128 script g0 8") // made later: accounted, too
	r.gate("g0").Open()
	s := d.Target(0).Mapper().(*scripted)
	s.plan = func(*Clone) Outcome { return Kill }
	r.ended(r.write(d, 0, 4), blk.IOErr)
	s.plan = func(c *Clone) Outcome { c.Complete(blk.NotSupported); return Submitted }
	r.ended(r.submit(d, blk.Discard, 0, 0, 8), blk.NotSupported)
	s.plan = nil
	r.submit(d, blk.Flush, 0, 0, 0)
	a := d.Account()
	if w := a.Ops[blk.Write]; w.Failed != 1 || w.Count != 0 {
		t.Errorf("writes: %+v", w)
	}
	if a.Ops[blk.Discard].Failed != 0 || a.Ops[blk.Flush].Count != 1 || a.Ops[blk.Flush].Sectors != 0 {
		t.Errorf("%+v", a)
	}
	r.must(d.Suspend(ctx, false))
	w := r.write(d, 0, 4)
	if a := d.Account(); a.Waiting != 1 {
		t.Errorf("%d wait", a.Waiting)
	}
	r.must(d.Resume(ctx, false))
	r.sim.Run()
	r.ended(w, blk.OK)
	if a := d.Account(); a.Waiting != 0 || a.Ops[blk.Write].Count != 1 || a.InFlight != 0 {
		t.Errorf("%+v", a)
	}
}

// TestAccountBesideRegions creates and deletes regions while accounting continues.
func TestAccountBesideRegions(t *testing.T) {
	r := newRig(t)
	d := r.device("x", "0 128 shift g0")
	r.gate("g0").Open()
	r.says(d, "@stats_create - /1", "0")
	r.c.Account()
	r.write(d, 2, 8)
	r.says(d, "@stats_print 0", "0+128 0 0 0 0 1 0 8 0 0 0 0 0 0\n")
	r.says(d, "@stats_delete 0", "")
	r.write(d, 2, 8)
	if w := d.Account().Ops[blk.Write]; w.Count != 2 {
		t.Errorf("%+v", w)
	}
}

// TestAccountWithConcurrentIO checks that counts are exact with I/O on several processors.
func TestAccountWithConcurrentIO(t *testing.T) {
	c := NewControl(env.Real(), anyNull{}, shiftType)
	c.Account()
	d, err := c.Create("d", "", -1)
	if err == nil {
		err = d.Load([]Spec{{0, 1 << 20, "shift", "null"}}, Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(ctx, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	const users, ios = 4, 500
	var wg sync.WaitGroup
	for u := range users {
		wg.Go(func() {
			for i := range uint64(ios) {
				wg.Add(1)
				b := &blk.Bio{Op: blk.Op(u % 2), Sector: i, End: func(*blk.Bio) { wg.Done() }}
				b.SetData(make([]byte, 8*blk.SectorSize))
				d.Submit(b)
				d.Account()
			}
		})
	}
	wg.Wait()
	a := d.Account()
	for op, o := range a.Ops[:2] {
		if o.Count != users/2*ios || o.Sectors != 8*users/2*ios {
			t.Errorf("op %d: %+v", op, o)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
