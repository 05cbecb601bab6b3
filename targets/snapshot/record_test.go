//go:build race || invariants

package snapshot

import (
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/env"
)

// pauseRecording runs f where recording comes to a point for the first time.
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

// threaded is a snapshot s of real threads.
func threaded(t *testing.T) (*rig, *dm.Device) {
	r := newGated(t, env.Real(), 4096, 8192)
	return r, r.device("s", 4096, "snapshot O C P 8")
}

// A record comes after the recorder has found no more, and before it ends its turn.
func TestRecordThatComesAtTheEndOfATurn(t *testing.T) {
	r, s := threaded(t)
	var late *io
	var wg sync.WaitGroup
	came := make(chan bool)
	pauseRecording(t, beforeRelease, func() {
		wg.Go(func() { late = r.write(s, 80, 8, 3); close(came) })
		<-came // its owner has waited in vain and left
	})
	first := r.write(s, 40, 8, 2)
	wg.Wait()
	r.wantEnd(first, blk.OK)
	r.wantEnd(late, blk.OK)
	r.wantData(s, 80, 8, 3)
}

// A record is recorded just before its owner would leave it to the recorder.
func TestRecordIsOverBeforeItsOwnerLeaves(t *testing.T) {
	r, s := threaded(t)
	r.gates["C"].Shut()
	first := r.write(s, 40, 8, 2)
	r.release("C", blk.Write, 16) // its area is held
	pauseRecording(t, beforeLeave, r.gates["C"].Open)
	second := r.write(s, 80, 8, 3)
	r.release("C", blk.Write, 24)
	if !second.ended() {
		t.Fatal("nobody has reported it")
	}
	r.wantEnd(first, blk.OK)
	r.wantEnd(second, blk.OK)
}

// Copies end in the wrong order: the second one to end brings both records.
func TestRecordWaitsForTheOneInFront(t *testing.T) {
	r, s := threaded(t)
	r.forget()
	r.gates["C"].Shut()
	first, second := r.write(s, 40, 8, 2), r.write(s, 80, 8, 3)
	r.release("C", blk.Write, 24)
	r.wantHeld("C", 1) // no area is written
	r.release("C", blk.Write, 16)
	r.wantHeld("C", 1)
	r.gates["C"].Open()
	r.wantEnd(first, blk.OK)
	r.wantEnd(second, blk.OK)
	r.wantTrace("C", "write 16+8", "write 24+8", areaWrite)
}

// A copy has ended where nobody has been told yet, and the next record comes and
// finds both.
func TestRecordIsFoundBeforeItsOwnerComes(t *testing.T) {
	r, s := threaded(t)
	var second *io
	var wg sync.WaitGroup
	ended := make(chan bool)
	pauseRecording(t, beforeEnter, func() {
		wg.Go(func() { second = r.write(s, 80, 8, 3); close(ended) })
		<-ended
		if !second.ended() {
			t.Error("not recorded, though nothing was in the way")
		}
	})
	first := r.write(s, 40, 8, 2)
	wg.Wait()
	r.wantEnd(first, blk.OK)
	r.wantEnd(second, blk.OK)
	r.wantInfo("s", "32/8192 16")
}
