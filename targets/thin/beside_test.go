package thin

import (
	"syscall"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// committing makes a pool with volume 0 whose commit, for a FUA write to its first
// block, waits for its first flush of the metadata.
func committing(t *testing.T) (*rig, *dm.Device, *ioT) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 32)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Gate("m").Shut()
	w := r.send(d, blk.Write, blk.FUA, 0, bs, 1)
	r.Sim.Run()
	r.releaseUntil("m", blk.Flush)
	r.Held(w)
	return r, d, w
}

// releaseUntil releases what is held at a gate up to the first request of an op.
func (r *rig) releaseUntil(name string, op blk.Op) {
	r.Helper()
	for {
		for _, q := range r.Gate(name).Held() {
			if q.Op == op {
				return
			}
			r.Gate(name).Release(q.Index)
		}
		r.Sim.Run()
		if len(r.Gate(name).Held()) == 0 {
			r.Fatalf("no %v comes to %s", op, name)
		}
	}
}

// finish releases everything.
func (r *rig) finish(name string) {
	r.Gate(name).Open()
	r.Gate(name).ReleaseAll()
	r.Sim.Run()
}

func TestProvisionsWhileACommitIsWritten(t *testing.T) {
	r, d, w := committing(t)
	r.Write(d, 3*bs, 8, 2)
	r.Want(d, 3*bs, 8, 3*bs, 2)
	r.Held(w)
	r.finish("m")
	r.Done(w, blk.OK)
	_, th := r.internals(d)
	if !th.vol.changed.Load() {
		t.Error("a volume that changed while its commit was written counts as durable")
	}
	r.Gate("m").Forget()
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	if len(r.Gate("m").Submitted()) == 0 {
		t.Error("a flush commits nothing")
	}
	if th.vol.changed.Load() {
		t.Error("a volume that is durable does not count as such")
	}
}

// TestOneCommitForAllThatWait: flushes and FUA writes that come while a commit is
// written share the next one, those of a volume without new changes as well.
func TestOneCommitForAllThatWait(t *testing.T) {
	r, d, w := committing(t)
	other := r.pending(d)
	flush := r.send(d, blk.Flush, 0, 0, 0, 0)
	r.Sim.Run()
	for _, x := range []*ioT{w, other, flush} {
		r.Held(x)
	}
	r.Gate("m").Forget()
	r.finish("m")
	for _, x := range []*ioT{w, other, flush} {
		r.Done(x, blk.OK)
	}
	supers := 0
	for _, q := range r.Gate("m").Submitted() {
		if q.Op == blk.Write && q.Sector == 0 {
			supers++
		}
	}
	if supers != 2 {
		t.Errorf("the superblock is written %d times, want once for the first commit and once for all that waited", supers)
	}
}

// pending is a FUA write to a block that is not mapped.
func (r *rig) pending(d *dm.Device) *ioT {
	x := r.send(d, blk.Write, blk.FUA, 5*bs, bs, 3)
	r.Sim.Run()
	return x
}

// TestFlushOfWhatIsBeingCommitted: the flush is not answered before the commit is durable.
func TestFlushOfWhatIsBeingCommitted(t *testing.T) {
	r, d, w := committing(t)
	flush := r.send(d, blk.Flush, 0, 0, 0, 0)
	fua := r.send(d, blk.Write, blk.FUA, 0, 8, 4)
	r.Sim.Run()
	r.Held(flush)
	r.Held(fua)
	r.finish("m")
	for _, x := range []*ioT{w, flush, fua} {
		r.Done(x, blk.OK)
	}
	// Everything is durable: nothing needs a commit.
	r.Gate("m").Forget()
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	if n := len(r.Gate("m").Submitted()); n != 0 {
		t.Errorf("%d metadata requests for a flush of a volume that is durable", n)
	}
}

// TestCommitBesideTheOwnerFails: the sealed transaction and the one after it are lost
// together, and every request that waits for either fails.
func TestCommitBesideTheOwnerFails(t *testing.T) {
	r, d, w := committing(t)
	late := r.thinBeside(d)
	r.Gate("m").Fail(r.Gate("m").Held()[0].Index, blk.IOErr)
	r.finish("m")
	r.Done(w, blk.IOErr)
	r.Done(late, blk.IOErr)
	r.mode("ro", "queue_if_no_space")
	r.Want(d, 0, 8, 0, 0)
	r.Want(d, 3*bs, 8, 3*bs, 0)
	r.Do(d, blk.Flush, 0, 0, 0, blk.IOErr)
}

// thinBeside writes to a new block and requests a commit, which has to wait.
func (r *rig) thinBeside(d *dm.Device) *ioT {
	r.Write(d, 3*bs, 8, 2)
	flush := r.send(d, blk.Flush, 0, 0, 0, 0)
	r.Sim.Run()
	r.Held(flush)
	return flush
}

// TestOthersWaitForTheCommit: work outside a pass, and a return to the last commit, wait
// for the commit that is being written.
func TestOthersWaitForTheCommit(t *testing.T) {
	r, d, w := committing(t)
	p, _ := r.internals(d)
	alone := func() {
		if p.writing.sealed != nil {
			t.Error("a commit is under way")
		}
	}
	called := r.background("call", func() { p.call(alone) })
	r.Held(w)
	r.finish("m")
	if !called() {
		t.Fatal("a call hangs")
	}
	r.Done(w, blk.OK)
}

func TestFailureWaitsForTheCommit(t *testing.T) {
	r, d, w := committing(t)
	late := r.thinBeside(d)
	p, _ := r.internals(d)
	p.owner.queue.Queue(env.NewWork(func() { p.metadataFailed(syscall.EIO) }))
	r.Sim.Run()
	r.Held(w)
	r.Held(late)
	r.finish("m")
	r.Done(w, blk.OK)
	r.Done(late, blk.IOErr)
	r.mode("ro", "queue_if_no_space")
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, 3*bs, 8, 3*bs, 0)
}
