package snapshot

import (
	"testing"

	"udm/blk"
)

// How a bio of several chunks is cut.

func TestOneWriteForManyNewChunks(t *testing.T) {
	r, s, o := gatedSnap(t)
	w := r.write(s, 40, 36, 2) // four chunks and a half
	r.wantTrace("O", "read 72+8")
	r.wantTrace("C", "write 16+32")
	r.release("C", blk.Write, 16)
	r.wantWaiting(w)
	r.release("O", blk.Read, 72)
	r.release("C", blk.Write, 48)
	r.wantTrace("C", "write 16+32", "write 48+8", areaWrite)
	r.release("C", blk.Write, 8)
	r.wantWaiting(w)
	r.release("C", blk.Write, 48)
	r.wantEnd(w, blk.OK)
	r.wantInfo("s", "56/512 16")
	r.open()
	r.wantData(s, 40, 36, 2)
	r.wantData(s, 76, 4, 1)
	r.wantData(o, 40, 40, 1)

	r.forget()
	r.wantEnd(r.write(s, 42, 20, 3), blk.OK)
	r.wantTrace("C", "write 18+20")
	r.wantData(s, 42, 20, 3)
	r.wantTrace("C", "write 18+20", "read 18+20")
}

func TestWriteOfManyChunksStopsAtAPendingOne(t *testing.T) {
	r, s, _ := gatedSnap(t)
	a, b := r.write(s, 56, 4, 2), r.write(s, 40, 32, 3)
	r.wantTrace("O", "read 56+8")
	r.wantTrace("C", "write 24+16", "write 40+8")
	r.open()
	r.wantEnd(a, blk.OK)
	r.wantEnd(b, blk.OK)
	r.wantData(s, 40, 32, 3)
}

func TestWriteOfManyChunksStopsAtAnArea(t *testing.T) {
	r := newGated(t, stepped(), 4096, 8192)
	s := r.device("s", 4096, "snapshot O C P 4") // 128 entries in an area
	r.forget()
	r.wantEnd(r.write(s, 0, 800, 2), blk.OK)
	r.wantData(s, 0, 800, 2)
	if got := r.gates["C"].Submitted()[0]; got.Op != blk.Write || got.Sector != 8 || got.Sectors != 512 {
		t.Errorf("the first write is %v", got)
	}
	r.suspend("s")
	r.remove("s")
	s = r.device("s", 4096, "snapshot O C P 4")
	r.wantData(s, 0, 800, 2)
}

func TestWriteOfManyChunksThatFailsDropsTheSnapshot(t *testing.T) {
	r, s, _ := gatedSnap(t)
	w := r.write(s, 40, 32, 2)
	r.fail("C", blk.Write, 16)
	r.wantWaiting(w) // until the store knows
	r.open()
	r.wantEnd(w, blk.IOErr)
	r.wantInfo("s", "Invalid")
}

// A write that fills the store half way through fails, and the chunks that fitted are
// written.
func TestWriteOfManyChunksToAStoreThatFillsUp(t *testing.T) {
	r := newGated(t, stepped(), 256, 40)
	s := r.device("s", 256, "snapshot O C PO 8") // room for three
	r.wantEnd(r.write(s, 0, 64, 2), blk.IOErr)
	r.wantInfo("s", "Overflow")
	r.wantData(s, 0, 24, 2)
	r.wantData(s, 24, 40, 1)
}

func TestOneReadForManyChunksOfTheOrigin(t *testing.T) {
	r, s, o := gatedSnap(t)
	rd := r.read(s, 2, 90)
	r.wantTrace("O", "read 2+90")
	w := r.write(o, 88, 8, 2)    // the chunk 11 of the read
	r.release("O", blk.Read, 95) // the copy
	r.release("C", blk.Write, 16)
	r.release("C", blk.Write, 8)
	r.wantTrace("O", "read 2+90", "read 88+8")
	r.wantWaiting(w)
	r.release("O", blk.Read, 2)
	r.wantEnd(rd, blk.OK)
	r.wantTrace("O", "read 2+90", "read 88+8", "write 88+8")
	r.open()
	r.wantEnd(w, blk.OK)
	r.forget()
	r.wantData(s, 2, 98, 1)
	r.wantTrace("O", "read 2+86", "read 96+4")
	r.wantTrace("C", "read 16+8")
}

func TestReadOfManyChunksRacesAnException(t *testing.T) {
	for _, chunk := range []uint64{5, 7} { // the first of the read, and a later one
		r, s, _ := gatedSnap(t)
		r.open()
		var w *io // waits for the read, its exception being there
		r.snap("s").stopOnce(pointTracked, func() { w = r.write(s, chunk*8, 8, 2) })
		r.wantEnd(r.read(s, 40, 40), blk.OK)
		r.wantEnd(w, blk.OK)
		r.wantData(s, chunk*8, 8, 2)
		for _, b := range r.gates["O"].Submitted() {
			if b.Sector <= chunk*8 && chunk*8 < b.Sector+b.Sectors {
				t.Errorf("%v at the origin after chunk %d had its exception", b, chunk)
			}
		}
	}
}
