package thin

import (
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/targets/internal/prison"
	"udm/targets/thin/thinmeta"
)

// The changes of a pass are visible to others before they get access to the blocks.
// Here the others are the ends of bios of the same pass.

func TestCopiesAreSeenByWhoComesNext(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 2*bs, 1)
	r.snapshot(d, 1, 0)
	r.Gate("d").Shut()
	w := r.Submit(d, blk.Write, 0, 0, 8, 2)
	w2 := r.Submit(d, blk.Write, 0, bs, 8, 3)
	var after *ioT
	w2.End = func(*blk.Bio) {
		w2.Ends++
		after = r.send(d, blk.Read, 0, 0, 8, 9)
	}
	for _, held := range [][]string{{"read 0+128", "read 128+128"}, {"write 256+128", "write 384+128"}} {
		r.held("d", held...)
		r.Gate("d").ReleaseAll()
	}
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(w, blk.OK)
	r.Done(w2, blk.OK)
	r.Done(after, blk.OK)
	r.Must(blktest.Check(after.Data, 0, 2))
}

func TestDiscardsAreSeenByWhoComesNext(t *testing.T) {
	r := newRig(t)
	r.start(64, "no_discard_passdown")
	d := r.thin(0, 64)
	r.Write(d, 0, 2*bs, 1)
	r.Sim.Run()
	x := r.send(d, blk.Discard, 0, 0, bs, 0)
	y := r.send(d, blk.Discard, 0, bs, bs, 0)
	var after *ioT
	y.End = func(*blk.Bio) {
		y.Ends++
		after = r.send(d, blk.Read, 0, 0, 8, 9)
	}
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Done(y, blk.OK)
	r.Done(after, blk.OK)
	r.Must(blktest.Check(after.Data, 0, 0))
}

// A mapping that cannot be inserted undoes those inserted before it in the same
// transaction: no bio may go to their blocks.
func TestInsertedAndLost(t *testing.T) {
	r := newRig(t, noZeroes)
	r.start(64)
	d := r.thin(0, 64)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	p, _ := r.internals(d)
	other, err := thinmeta.Open(r.Sim, r.Disk("m").Clone(), thinmeta.Options{ReadOnly: true})
	r.Must(err)
	td, err := other.OpenThin(0)
	r.Must(err)
	bad := &thin{pool: p, vol: &volume{td: td}}
	r.Gate("d").Shut()
	w := r.Submit(d, blk.Write, 0, 0, 8, 1)
	r.release("d")
	// The mapping of w is prepared; one that fails follows.
	p.push(&p.inbox.prepared, bad.newMapping(p.prison.Detain(prison.Block(true, 99, 0), nil), 5))
	r.Gate("d").Forget()
	r.Sim.Run()
	r.Done(w, blk.IOErr)
	r.held("d")
	r.Gate("d").Open()
	if f := r.info(r.pool); f[4] != "ro" || f[7] != "needs_check" {
		t.Errorf("status %v", f)
	}
	r.Want(d, 0, 8, 0, 0)

}

// TestReadsAfterAProvisionGoToTheOwnerOnce: after a block was provisioned, metadata
// readers have an older state until the next read goes to the owner.
func TestReadsAfterAProvisionGoToTheOwnerOnce(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 3*bs, 8, 1)
	for _, owner := range []bool{true, false} {
		x := r.send(d, blk.Read, 0, 5*bs, 8, 0)
		if x.Ends == 1 == owner {
			t.Errorf("read has ended: %t, want %t", x.Ends == 1, !owner)
		}
		r.Sim.Run()
		r.Done(x, blk.OK)
	}
	_, th := r.internals(d)
	th.vol.cache.clear()
	r.Want(d, 3*bs, 8, 3*bs, 1)
	r.Write(d, 5*bs, 8, 2)
	th.vol.cache.clear()
	r.Want(d, 5*bs, 8, 5*bs, 2)
}
