//go:build race || invariants

package snapshot

import (
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// pauseRecording runs f when recording first reaches a point.
func pauseRecording(t *testing.T, at recordPoint, f func()) {
	var once atomic.Bool
	hook := func(p recordPoint) {
		if p == at && !once.Swap(true) {
			f()
		}
	}
	atRecordPoint.Store(&hook)
	t.Cleanup(func() { atRecordPoint.Store(nil) })
}

// everywhere runs f with a snapshot s on the simulator, where work that never ends is
// an error, and then with real threads.
func everywhere(t *testing.T, f func(*rig, *dm.Device)) {
	for _, e := range []env.Env{stepped(), env.Real()} {
		r := newGated(t, e, 4096, 8192)
		f(r, r.device("s", 4096, "snapshot O C P 8"))
	}
}

// A record comes after the recorder has found no more, and before it ends its turn.
func TestRecordThatComesAtTheEndOfATurn(t *testing.T) {
	everywhere(t, func(r *rig, s *dm.Device) {
		var late *io
		pauseRecording(t, beforeRelease, func() {
			// Its owner stops waiting for it and leaves.
			r.beside(func() { late = r.write(s, 80, 8, 3) })
		})
		first := r.write(s, 40, 8, 2)
		r.wantEnd(first, blk.OK)
		r.wantEnd(late, blk.OK)
		r.wantData(s, 80, 8, 3)
	})
}

// A record is written just before its owner would leave it to the recorder.
func TestRecordIsOverBeforeItsOwnerLeaves(t *testing.T) {
	everywhere(t, func(r *rig, s *dm.Device) {
		r.gates["C"].Shut()
		first := r.write(s, 40, 8, 2)
		r.release("C", blk.Write, 16) // its area is held
		pauseRecording(t, beforeLeave, func() { r.beside(r.gates["C"].Open) })
		second := r.write(s, 80, 8, 3)
		r.release("C", blk.Write, 24)
		r.wantEnd(first, blk.OK)
		r.wantEnd(second, blk.OK)
	})
}

// The first of two copies to end writes no area while the other is at a device.
func TestRecordWaitsForTheOneInFront(t *testing.T) {
	everywhere(t, func(r *rig, s *dm.Device) {
		r.forget()
		r.gates["C"].Shut()
		first, second := r.write(s, 40, 8, 2), r.write(s, 80, 8, 3)
		r.release("C", blk.Write, 16)
		r.wantHeld("C", 1) // no area is written
		r.release("C", blk.Write, 24)
		r.wantHeld("C", 1)
		r.gates["C"].Open()
		r.wantEnd(first, blk.OK)
		r.wantEnd(second, blk.OK)
		r.wantTrace("C", "write 16+8", "write 24+8", areaWrite)
	})
}

// A copy has ended and its waiters have not been told when the next record comes and
// finds both.
func TestRecordIsFoundBeforeItsOwnerComes(t *testing.T) {
	everywhere(t, func(r *rig, s *dm.Device) {
		var second *io
		pauseRecording(t, beforeEnter, func() {
			r.beside(func() { second = r.write(s, 80, 8, 3) })
			if !second.ended() {
				t.Error("not recorded, though nothing was in the way")
			}
		})
		first := r.write(s, 40, 8, 2)
		r.wantEnd(first, blk.OK)
		r.wantEnd(second, blk.OK)
		r.wantInfo("s", "32/8192 16")
	})
}
