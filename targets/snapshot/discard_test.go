package snapshot

import (
	"testing"

	"udm/blk"
)

func TestDiscardsNeedTheFeature(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8")
	o := r.device("o", 256, "snapshot-origin O")
	if s.Limits().MaxDiscard != 0 || o.Limits().MaxDiscard != 0 {
		t.Error("discard offered")
	}
	r.wantEnd(r.start(s, blk.Discard, 0, 8, 0, 0), blk.NotSupported)
	r.wantEnd(r.start(o, blk.Discard, 0, 8, 0, 0), blk.NotSupported)
}

func TestDiscardZeroesChunks(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8 1 discard_zeroes_cow")
	if l := s.Limits(); l.MaxDiscard != 8 || l.DiscardGranularity != 4096 {
		t.Errorf("limits %+v", l)
	}
	r.wantEnd(r.write(s, 40, 16, 2), blk.OK)
	r.forget()
	r.wantEnd(r.start(s, blk.Discard, 40, 8, 0, 0), blk.OK) // whole: zeroed
	r.wantEnd(r.start(s, blk.Discard, 50, 3, 0, 0), blk.OK) // in part: discarded
	r.wantEnd(r.start(s, blk.Discard, 0, 8, 0, 0), blk.OK)  // no exception: nothing
	r.wantTrace("C", "write-zeroes 16+8", "discard 26+3")
	r.wantTrace("O")
	r.wantInfo("s", "32/512 16")
	r.wantData(s, 0, 8, 1)
	r.wantData(s, 40, 8, 0)
	r.wantData(s, 48, 2, 2)
	r.wantData(s, 53, 3, 2)
}

// A discard as long as a chunk that straddles two chunks zeroes neither.
func TestMisalignedDiscard(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8 1 discard_zeroes_cow")
	r.wantEnd(r.write(s, 56, 8, 3), blk.OK) // its neighbour in the COW device
	r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
	r.forget()
	r.wantEnd(r.start(s, blk.Discard, 44, 8, 0, 0), blk.OK)
	r.wantTrace("C", "discard 28+4")
	r.wantEnd(r.start(s, blk.Discard, 36, 16, 0, 0), blk.OK)
	r.wantData(s, 36, 4, 1)
	r.wantData(s, 40, 8, 0)
	r.wantData(s, 48, 8, 1)
	r.wantData(s, 56, 8, 3)
}

func TestDiscardPassedDown(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	o := r.device("o", 256, "snapshot-origin O")
	s := r.device("s", 256, "snapshot O C P 8 2 discard_zeroes_cow discard_passdown_origin")
	r.forget()
	r.gates["O"].Shut()
	d := r.start(s, blk.Discard, 40, 8, 0, 0)
	r.wantTrace("O", "discard 40+8")
	// An origin write waits for it, as it does for a read.
	w := r.write(o, 40, 8, 2)
	r.release("O", blk.Read, 40)
	r.wantWaiting(d, w)
	r.wantTrace("O", "discard 40+8", "read 40+8")
	r.release("O", blk.Discard, 40)
	r.wantEnd(d, blk.OK)
	r.wantTrace("O", "discard 40+8", "read 40+8", "write 40+8")
	r.open()
	r.wantEnd(w, blk.OK)
	r.snap("s").mustBeIdle(t)
}

func TestFailedDiscards(t *testing.T) {
	r := newGated(t, stepped(), 256, 512)
	s := r.device("s", 256, "snapshot O C P 8 1 discard_zeroes_cow")
	r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
	r.forget()
	r.shut()
	d := r.start(s, blk.Discard, 40, 8, 0, 0)
	r.fail("C", blk.WriteZeroes, 16)
	r.wantEnd(d, blk.IOErr)
	r.open()
	r.wantInfo("s", "24/512 16")
}
