package thin

import (
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
)

func TestPeriodicCommit(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Sim.Advance(10 * time.Second)
	r.Gate("m").Forget()
	r.Sim.Advance(10 * time.Second)
	if n := len(r.Gate("m").Submitted()); n != 0 {
		t.Fatalf("%d metadata requests while nothing changes", n)
	}
	r.Write(d, 0, 8, 1)
	if n := len(r.Gate("m").Submitted()); n == 0 {
		// The last commit was long ago: the write's own pass may commit at once.
		r.Sim.Advance(2 * time.Second)
	}
	if n := len(r.Gate("m").Submitted()); n == 0 {
		t.Fatal("no commit within two seconds")
	}
}

type blkRequest = blktest.Request

// failSome makes those requests to a disk fail for which bad returns true.
func (r *rig) failSome(name string, bad func(blkRequest) bool, fn func()) {
	g := r.Gate(name)
	g.Shut()
	done := false
	r.Sim.Go("failer", func() {
		for !done {
			r.wait(func() bool { return done || len(g.Held()) > 0 })
			for _, q := range g.Held() {
				if bad(q) {
					g.Fail(q.Index, blk.IOErr)
				} else {
					g.Release(q.Index)
				}
			}
		}
	})
	fn()
	r.Sim.Run()
	done = true
	r.Sim.Run()
	g.Open()
}

// failWith makes all requests to a disk fail.
func (r *rig) failWith(name string, fn func()) {
	r.failSome(name, func(blkRequest) bool { return true }, fn)
}

func (r *rig) wait(cond func() bool) { r.Sim.NewWait().Until(cond) }

func TestFailedCommitTurnsThePoolOff(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.failWith("m", func() {
		r.Write(d, bs, 8, 2)
		x := r.Submit(d, blk.Flush, 0, 0, 0, 0)
		r.Done(x, blk.IOErr)
	})
	r.Lines(r.pool, dm.Info, "0 8192 thin-pool Fail")
	r.Lines(d, dm.Info, "0 8192 thin Fail")
	r.Lines(d, dm.TableText, "0 8192 thin Fail")
	r.Do(d, blk.Read, 0, 8, 0, blk.IOErr)
	r.Do(d, blk.Write, 0, 8, 0, blk.IOErr)
	r.Do(d, blk.Discard, 0, 128, 0, blk.IOErr)
	r.Do(d, blk.Flush, 0, 0, 0, blk.IOErr)
	r.Message(r.pool, "create_thin 5", "", syscall.EOPNOTSUPP)
	r.refuses(r.empty("x"), "0 128 thin /dev/mapper/pool 0 => EINVAL Couldn't open thin device, Pool is in fail mode")
	r.Swap(r.pool, poolTable(64)) // resumes all the same
	r.Lines(r.pool, dm.Info, "0 8192 thin-pool Fail")
}

// failOnce makes one request of an op to a disk fail: the commit's, not those of the
// return to the last commit.
func (r *rig) failOnce(name string, op blk.Op, fn func()) {
	failed := false
	r.failSome(name, func(q blkRequest) bool {
		first := q.Op == op && !failed
		failed = failed || first
		return first
	}, fn)
	if !failed {
		r.Fatal("nothing failed")
	}
}

func TestFailedCommitGoesBackToTheLastOne(t *testing.T) {
	for _, c := range []struct {
		disk string
		op   blk.Op
	}{{"m", blk.Write}, {"m", blk.Flush}, {"d", blk.Flush}} {
		t.Run(c.disk+c.op.String(), func(t *testing.T) {
			r := newRig(t)
			r.start(64)
			d, other, loser := r.thin(0, 64), r.thin(1, 64), r.thin(2, 64)
			r.Write(d, 0, 8, 1)
			r.Write(other, 0, 8, 7)
			r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
			r.Want(d, 0, 8, 0, 1)
			before := r.events()
			r.failOnce(c.disk, c.op, func() {
				r.Write(d, bs, 8, 2)
				r.Want(d, bs, 8, bs, 2)
				r.Write(loser, 0, 8, 3)
				x := r.Submit(d, blk.Flush, 0, 0, 0, 0)
				r.Done(x, blk.IOErr)
			})
			if f := r.info(r.pool); f[4] != "ro" || f[7] != "needs_check" {
				t.Fatalf("status %v", f)
			}
			if r.events() <= before {
				t.Error("no event")
			}
			r.Want(d, 0, 8, 0, 1)
			r.Want(d, bs, 8, bs, 0) // the mapping is lost
			r.Do(d, blk.Flush, 0, 0, 0, blk.IOErr)
			r.Do(loser, blk.Flush, 0, 0, 0, blk.IOErr)
			r.Do(other, blk.Flush, 0, 0, 0, blk.OK)
			// needs_check stays until the metadata are repaired.
			r.Swap(r.pool, poolTable(64))
			if f := r.info(r.pool); f[4] != "ro" || f[7] != "needs_check" {
				t.Fatalf("status %v", f)
			}
			r.Disk("d").Resize(100 * bs)
			r.Swap(r.pool, poolTable(100))
			if f := r.info(r.pool); f[2] != "2/64" {
				t.Fatalf("status %v", f)
			}
		})
	}
}

func TestFlushOfAQuietVolumeCommitsNothing(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d, other := r.thin(0, 64), r.thin(1, 64)
	r.Write(d, 0, 8, 1)
	r.Gate("m").Forget()
	r.Gate("d").Forget()
	r.Do(other, blk.Flush, 0, 0, 0, blk.OK)
	if n := len(r.Gate("m").Submitted()); n != 0 {
		t.Errorf("%d metadata requests", n)
	}
	r.Trace("d", "flush 0+0\n")
}

func TestCommitOrder(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 128, 1)
	r.Gate("d").Shut()
	x := r.Submit(d, blk.Flush, 0, 0, 0, 0)
	r.held("d", "flush 0+0")
	r.Gate("m").Forget()
	if got := r.Gate("m").Trace(); got != "" {
		t.Fatalf("metadata written before the data is flushed:\n%s", got)
	}
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	trace := r.Gate("m").Trace()
	if n := len(trace); n == 0 || trace[n-len("write 0+8 fua\n"):] != "write 0+8 fua\n" && trace[n-len("flush 0+0\n"):] != "flush 0+0\n" {
		t.Fatalf("commit:\n%s", trace)
	}
}
