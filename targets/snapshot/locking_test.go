package snapshot

import (
	"testing"

	"udm/blk"
	"udm/env"
)

// The promises of "use fine-grained locking scheme". A hook stops thread A
// between its lookup in the table and its lock; B runs inside the hook.

// stopOnce runs fn when the first thread reaches p.
func (s *snapshot) stopOnce(p point, fn func()) {
	done := false
	s.hook = func(q point) {
		if p == q && !done {
			done = true
			fn()
		}
	}
}

func TestLoserOfTheRaceFindsTheException(t *testing.T) {
	r, s, _ := gatedSnap(t)
	r.open()
	var b *io
	r.snap("s").stopOnce(pointAllocate, func() { b = r.write(s, 40, 3, 3) })
	a := r.write(s, 44, 2, 2)
	r.wantEnd(b, blk.OK)
	r.wantEnd(a, blk.OK)
	r.wantTrace("O", "read 40+8")
	r.wantInfo("s", "24/512 16")
	r.wantData(s, 40, 3, 3)
	r.wantData(s, 44, 2, 2)
}

func TestLoserOfTheRaceJoinsThePendingOne(t *testing.T) {
	r, s, _ := gatedSnap(t)
	var b *io
	r.snap("s").stopOnce(pointAllocate, func() { b = r.write(s, 40, 3, 3) })
	a := r.write(s, 44, 2, 2)
	r.wantTrace("O", "read 40+8")
	r.wantWaiting(a, b)
	r.open()
	r.wantEnd(a, blk.OK)
	r.wantEnd(b, blk.OK)
	r.wantTrace("O", "read 40+8")
	r.wantInfo("s", "24/512 16")
}

func TestOriginWriteRacesSnapshotWrite(t *testing.T) {
	for name, held := range map[string]bool{"finished": false, "pending": true} {
		t.Run(name, func(t *testing.T) {
			r, s, o := gatedSnap(t)
			if !held {
				r.open()
			}
			var b *io
			r.snap("s").stopOnce(pointAllocate, func() { b = r.write(s, 40, 3, 3) })
			a := r.write(o, 44, 2, 2)
			if held {
				r.wantWaiting(a, b)
				r.wantTrace("O", "read 40+8")
			}
			r.open()
			r.wantEnd(b, blk.OK)
			r.wantEnd(a, blk.OK)
			r.wantTrace("O", "read 40+8", "write 44+2")
			r.wantInfo("s", "24/512 16")
			r.wantData(s, 43, 5, 1)
			r.wantData(o, 44, 2, 2)
		})
	}
}

func TestInvalidatedWhileBetweenLocks(t *testing.T) {
	for _, dev := range []string{"s", "o"} {
		r, s, o := gatedSnap(t)
		r.open()
		sn := r.snap("s")
		sn.stopOnce(pointAllocate, func() { sn.invalidate("a test") })
		if dev == "s" {
			r.wantEnd(r.write(s, 40, 3, 2), blk.IOErr)
		} else {
			r.wantEnd(r.write(o, 40, 3, 2), blk.OK)
		}
		r.wantInfo("s", "Invalid")
		sn.mustBeIdle(t)
	}
}

// A read that has gone to the origin when the snapshot is dropped does not return what
// the origin holds by then.
func TestReadOvertakenByADrop(t *testing.T) {
	r, s, o := gatedSnap(t)
	rd := r.read(s, 40, 8)
	r.snap("s").invalidate("a test")
	r.gates["C"].Open()
	r.run()
	w := r.write(o, 40, 8, 2)
	r.release("O", blk.Write, 40)
	r.wantEnd(w, blk.OK)
	r.release("O", blk.Read, 40)
	r.wantEnd(rd, blk.IOErr)
}

func TestSlotsAreIndependent(t *testing.T) {
	r := newGated(t, env.Real(), 4096, 8192)
	s := r.device("s", 4096, "snapshot O C P 8")
	sn := r.snap("s")
	const x = 5
	same := x + sn.pending.size
	sl := sn.pending.slot(x)
	if sn.pending.slot(same) != sl || sn.pending.slot(x+1) == sl {
		t.Fatal("slots are not by chunk")
	}
	sl.mu.Lock()
	r.wantEnd(r.write(s, (x+1)*8, 8, 2), blk.OK)
	r.wantEnd(r.read(s, (x+1)*8, 8), blk.OK)
	entered, ended := make(chan bool), make(chan *io)
	sn.stopOnce(pointAllocate, func() { close(entered) })
	go func() { ended <- r.write(s, same*8, 8, 2) }()
	<-entered
	r.wantInfo("s", "24/8192 16") // only the other one has a place
	sl.mu.Unlock()
	r.wantEnd(<-ended, blk.OK)
	r.wantInfo("s", "32/8192 16")
}

// Thread A has its place and has not begun to copy. Thread B comes, finishes first,
// and waits for A.
func TestRecordsAreInOrderOfPlaces(t *testing.T) {
	for _, e := range []env.Env{stepped(), env.Real()} {
		r := newGated(t, e, 4096, 8192)
		s := r.device("s", 4096, "snapshot O C P 8")
		var b *io
		r.snap("s").stopOnce(pointPlaced, func() {
			r.snap("s").hook = nil
			r.beside(func() { b = r.write(s, 80, 8, 3) })
			if b.ended() {
				t.Fatal("recorded before what is in front of it")
			}
		})
		a := r.write(s, 40, 8, 2)
		r.wantEnd(a, blk.OK)
		r.wantEnd(b, blk.OK)
		area := make([]byte, 512)
		r.ok(blk.ReadSectors(r.e, r.disks["C"], area, 8))
		for i, want := range [][2]uint64{{5, 2}, {10, 3}} {
			if old, new := getEntry(area, uint64(i)); old != want[0] || new != want[1] {
				t.Errorf("entry %d is %d→%d, want %v", i, old, new, want)
			}
		}
	}
}

func TestOriginWriteWaitsForReadsOfTheSnapshot(t *testing.T) {
	r, s, o := gatedSnap(t)
	old := r.read(s, 41, 1)
	ow := r.write(o, 40, 8, 2)
	r.release("O", blk.Read, 42) // the copy, not the read of sector 41
	r.release("C", blk.Write, 16)
	r.release("C", blk.Write, 8)
	r.wantTrace("O", "read 41+1", "read 40+8")
	// A read that comes now goes to the COW device and does not matter.
	late := r.read(s, 41, 1)
	r.wantTrace("C", "write 16+8", areaWrite, "read 17+1")
	r.wantWaiting(old, ow, late)
	r.release("O", blk.Read, 41)
	r.wantEnd(old, blk.OK)
	r.wantTrace("O", "read 41+1", "read 40+8", "write 40+8")
	r.wantWaiting(late)
	r.open()
	r.wantEnd(ow, blk.OK)
	r.wantEnd(late, blk.OK)
	for _, i := range []*io{old, late} {
		if i.buf[0] != r.read(s, 41, 1).buf[0] {
			t.Error("a read saw the origin's new content")
		}
	}
	r.wantData(s, 40, 8, 1)
}

// So does one that comes after the exception was added.
func TestSecondOriginWriteWaitsForReadsToo(t *testing.T) {
	r, s, o := gatedSnap(t)
	old := r.read(s, 41, 1)
	a := r.write(o, 40, 8, 2)
	r.release("O", blk.Read, 42)
	r.gates["C"].Open()
	r.run()
	b := r.write(o, 41, 1, 3)
	r.wantTrace("O", "read 41+1", "read 40+8")
	r.wantWaiting(old, a, b)
	r.open()
	r.wantEnd(old, blk.OK)
	r.wantEnd(a, blk.OK)
	r.wantEnd(b, blk.OK)
	r.wantData(s, 40, 8, 1)
}

// A read that has been tracked after the exception was added sees it.
func TestReadRacesTheException(t *testing.T) {
	r, s, o := gatedSnap(t)
	r.open()
	var ow *io
	r.snap("s").stopOnce(pointTracked, func() {
		ow = r.write(o, 40, 8, 2)
		r.wantWaiting(ow) // for this very read
	})
	rd := r.read(s, 40, 8)
	r.wantEnd(ow, blk.OK)
	r.wantEnd(rd, blk.OK)
	r.wantTrace("C", "write 16+8", areaWrite, "read 16+8")
	r.wantData(s, 40, 8, 1)
}

// A pending exception of another chunk in the same slot does not interfere.
func TestOriginWriteToAChunkWithException(t *testing.T) {
	r := newGated(t, stepped(), 4096, 8192)
	o := r.device("o", 4096, "snapshot-origin O")
	s := r.device("s", 4096, "snapshot O C P 8")
	r.wantEnd(r.write(s, 40, 8, 2), blk.OK)
	r.forget()
	r.shut()
	other := r.write(s, (5+r.snap("s").pending.size)*8, 3, 2)
	w := r.write(o, 40, 8, 3)
	r.wantTrace("O", "read 552+8", "write 40+8")
	r.wantWaiting(other, w)
}
