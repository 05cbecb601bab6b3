package thin

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
)

// snapshot makes volume id from origin, whose device is d.
func (r *rig) snapshot(d *dm.Device, id, origin int) *dm.Device {
	r.Helper()
	r.Suspend(d, false)
	r.msg("create_snap %d %d", id, origin)
	r.Resume(d)
	return r.open(id, d.Status().Sectors/bs)
}

func TestDiscardPassesDownWhatNobodyUses(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8*bs, 1) // data blocks 0 to 7
	s := r.snapshot(d, 1, 0)
	r.Write(d, 2*bs, bs, 2) // block 2 to data block 8
	r.Write(s, 4*bs, bs, 3) // block 4 of s to data block 9
	r.Gate("d").Forget()
	r.Do(d, blk.Discard, 0, 8*bs, 0, blk.OK)
	// d shares data blocks 0, 1, 3 and 5 to 7 with s; 4 and 8 are its own. That s no
	// longer uses 4 is committed first.
	r.Trace("d", "flush 0+0\ndiscard 1024+128\ndiscard 512+128\n")
	r.Lines(d, dm.Info, "0 8192 thin 0 -")
	r.usage(8)
	r.Want(d, 0, 8*bs, 0, 0)
	r.Want(s, 0, 4*bs, 0, 1)
	r.Want(s, 4*bs, bs, 4*bs, 3)
	r.Gate("d").Forget()
	r.Do(s, blk.Discard, 0, 64*bs, 0, blk.OK)
	r.Do(s, blk.Flush, 0, 0, 0, blk.OK)
	r.Lines(s, dm.Info, "0 8192 thin 0 -")
	r.usage(0)
}

// TestDiscardsOfAPassCommitOnce: many runs that were shared until this transaction take
// one commit.
func TestDiscardsOfAPassCommitOnce(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8*bs, 1)
	s := r.snapshot(d, 1, 0)
	r.Write(d, 7*bs, bs, 2)
	for b := range uint64(3) {
		r.Write(s, 2*b*bs, bs, 3)
	}
	r.Gate("d").Forget()
	a := r.send(d, blk.Discard, 0, 0, 3*bs, 0)
	b := r.send(d, blk.Discard, 0, 4*bs, 4*bs, 0)
	r.Sim.Run()
	r.Done(a, blk.OK)
	r.Done(b, blk.OK)
	r.Trace("d", "flush 0+0\ndiscard 0+128\ndiscard 256+128\ndiscard 512+128\ndiscard 1024+128\n")
	r.Want(d, 0, 3*bs, 0, 0)
	r.Want(d, 3*bs, bs, 3*bs, 1)
	r.Want(s, bs, bs, bs, 1)
}

func TestDiscardWithoutPassdown(t *testing.T) {
	for _, tune := range []func(*blk.Limits){
		func(l *blk.Limits) {},
		func(l *blk.Limits) { l.MaxDiscard = 0 },
		func(l *blk.Limits) { l.MaxDiscard = bs - 1 },
	} {
		r := newRig(t, tune)
		l := blk.DefaultLimits(0)
		l.MaxDiscard = 1000
		if tune(&l); l.MaxDiscard == 1000 {
			r.start(64, "no_discard_passdown")
		} else {
			r.start(64)
		}
		if f := r.info(r.pool); f[5] != "no_discard_passdown" {
			t.Fatalf("status %v", f)
		}
		d := r.thin(0, 64)
		r.Write(d, 0, 8*bs, 1)
		r.Gate("d").Forget()
		r.Do(d, blk.Discard, bs, 2*bs, 0, blk.OK)
		r.Trace("d", "")
		r.Want(d, bs, 2*bs, bs, 0)
		r.Lines(d, dm.Info, "0 8192 thin 768 1023")
	}
}

func TestDiscardOfPartsOfBlocksDoesNothing(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 4*bs, 1)
	for _, x := range [][2]uint64{{0, 127}, {1, 127}, {1, 254}, {100, 20}, {127, 2}} {
		r.Do(d, blk.Discard, x[0], x[1], 0, blk.OK)
	}
	r.Want(d, 0, 4*bs, 0, 1)
	r.Do(d, blk.Discard, 1, 3*bs, 0, blk.OK)
	r.Want(d, 0, bs, 0, 1)
	r.Want(d, bs, 2*bs, bs, 0)
	r.Want(d, 3*bs, bs, 3*bs, 1)
}

func TestFailedPassdownUnmapsAllTheSame(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 4*bs, 1)
	r.Gate("d").Shut()
	x := r.Submit(d, blk.Discard, 0, 0, 4*bs, 0)
	r.Gate("d").Fail(r.held("d", "discard 0+512")[0].Index, blk.IOErr)
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Gate("d").Open()
	r.Lines(d, dm.Info, "0 8192 thin 0 -")
	r.usage(0)
}

// Blocks that the data device is discarding are not allocated.
func TestBlocksBeingDiscardedAreNotAllocated(t *testing.T) {
	r := newRig(t)
	r.start(8, "error_if_no_space")
	d := r.thin(0, 64)
	r.Write(d, 0, 8*bs, 1)
	r.Gate("d").Shut()
	x := r.Submit(d, blk.Discard, 0, 0, 8*bs, 0)
	r.held("d", "discard 0+1024")
	w := r.Submit(d, blk.Write, 0, 20*bs, 8, 2)
	r.held("d", "discard 0+1024", "flush 0+0") // a commit finds nothing free
	r.Gate("d").Release(r.Gate("d").Held()[1].Index)
	r.Sim.Run()
	r.Done(w, blk.NoSpace)
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Sim.Advance(3 * time.Second)
	r.Write(d, 20*bs, 8, 2)
}

// I/O to the blocks waits in the cell, even if the cache had the mapping.
func TestIODuringADiscardWaits(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 4*bs, 1)
	r.Want(d, 0, 4*bs, 0, 1)
	r.Gate("d").Shut()
	old := r.Submit(d, blk.Read, 0, bs, 8, 9)
	x := r.Submit(d, blk.Discard, 0, 0, 2*bs, 0)
	w := r.Submit(d, blk.Write, 0, bs, 8, 2)
	rd := r.Submit(d, blk.Read, 0, 2*bs, 8, 9) // another block
	r.held("d", "read 128+8", "read 256+8")
	r.Held(x)
	r.release("d")
	r.Sim.Run()
	r.Done(old, blk.OK)
	r.held("d", "read 256+8", "discard 0+256")
	r.Held(w)
	r.Gate("d").Open()
	r.Sim.Run()
	for _, y := range []*ioT{x, w, rd} {
		r.Done(y, blk.OK)
	}
	r.Want(d, 0, bs, 0, 0)
	r.Want(d, bs, 8, bs, 2)
	r.Want(d, bs+8, bs-8, bs+8, 0)
}

func TestDiscardWaitsForABreakOfSharing(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, bs, 1)
	s := r.snapshot(d, 1, 0)
	r.Gate("d").Shut()
	w := r.Submit(d, blk.Write, 0, 0, 8, 2)
	r.held("d", "read 0+128")
	x := r.Submit(d, blk.Discard, 0, 0, bs, 0)
	r.Held(x)
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(w, blk.OK)
	r.Done(x, blk.OK)
	r.Want(d, 0, bs, 0, 0)
	r.Want(s, 0, bs, 0, 1)
	r.usage(1)
}

func TestSharingIsBrokenOnce(t *testing.T) {
	for _, sectors := range []uint64{8, bs} {
		t.Run(fmt.Sprint(sectors), func(t *testing.T) {
			r := newRig(t)
			r.start(64)
			d := r.thin(0, 64)
			r.Write(d, 0, bs, 1)
			s := r.snapshot(d, 1, 0)
			r.Want(d, 0, bs, 0, 1)
			r.Want(d, 0, bs, 0, 1) // by the cache
			r.Gate("d").Shut()
			rd := r.Submit(d, blk.Read, 0, 64, 8, 9)
			w := r.Submit(d, blk.Write, 0, 0, sectors, 2)
			w2 := r.Submit(d, blk.Write, 0, 64, 8, 3)
			late := r.Submit(d, blk.Read, 0, 72, 8, 9)
			if sectors == bs {
				r.held("d", "read 64+8", "write 128+128")
			} else {
				r.held("d", "read 64+8", "read 0+128")
			}
			// Everything but the old read has ended; the block is not mapped before that read ends.
			rs := r.Gate("d").Held()
			r.Gate("d").Release(rs[1].Index)
			r.Sim.Run()
			if sectors != bs {
				r.Gate("d").Release(r.held("d", "read 64+8", "write 128+128")[1].Index)
				r.Sim.Run()
			}
			r.held("d", "read 64+8")
			r.Held(w)
			r.Gate("d").Open()
			r.Sim.Run()
			for _, x := range []*ioT{rd, w, w2, late} {
				r.Done(x, blk.OK)
			}
			r.Want(s, 0, bs, 0, 1)
			r.Want(d, 0, 8, 0, 2)
			r.Want(d, 64, 8, 64, 3)
			r.usage(2)
		})
	}
}

// A volume that is overwritten, snapshotted and overwritten again uses 2N blocks.
func TestOverwriteSnapshotOverwrite(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 20)
	for i := range uint64(20) {
		r.Write(d, i*bs, bs, 1)
	}
	r.usage(20)
	s := r.snapshot(d, 1, 0)
	for range 2 {
		for i := range uint64(20) {
			r.Write(d, i*bs+i, 8, 2)
		}
		r.usage(40)
	}
	r.Want(s, 0, 20*bs, 0, 1)
	r.Must(s.Close())
	r.msg("delete 1")
	r.usage(20)
}

// The mapping is withdrawn after a write has found it and before the write is counted.
// The owner takes the snapshot without waiting for I/O of the volume, unlike the
// message: the write is in flight. (The hook exists with invariants on, as under the
// race detector.)
func TestWithdrawnMappingIsNotUsed(t *testing.T) {
	for _, how := range []func(r *rig, d *dm.Device){
		func(r *rig, d *dm.Device) { r.Do(d, blk.Discard, 0, bs, 0, blk.OK) },
		func(r *rig, d *dm.Device) {
			p, _ := r.internals(d)
			p.call(func() { r.Must(p.message("create_snap", [2]uint64{1, 0})) })
		},
	} {
		r := newRig(t)
		r.start(64)
		d := r.thin(0, 64)
		r.Write(d, 0, bs, 1)
		r.Want(d, 0, bs, 0, 1)
		p, _ := r.internals(d)
		p.tests.beforeEnter = func() {
			p.tests.beforeEnter = nil
			how(r, d)
		}
		r.Gate("d").Forget()
		r.Write(d, 0, 8, 2)
		if p.tests.beforeEnter == nil && strings.Contains(r.Gate("d").Trace(), "write 0+8") {
			t.Error("the write went to the block that the volume no longer had to itself")
		}
		r.Want(d, 0, 8, 0, 2)
	}
}
