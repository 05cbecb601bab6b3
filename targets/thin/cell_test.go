package thin

import (
	"testing"

	"udm/blk"
	"udm/dm"
)

// The commit "dm thin: remap the bios in a cell immediately".

// zeroing makes a pool whose block 0 of volume 0 is being zeroed for a write of
// 8 sectors, held at the data disk.
func zeroing(t *testing.T) (*rig, *dm.Device, *ioT) {
	r := newRig(t, noZeroes)
	r.start(64)
	d := r.thin(0, 16)
	r.Sim.Run()
	r.Gate("d").Shut()
	w := r.send(d, blk.Write, 0, 0, 8, 1)
	r.step()
	r.held("d", "write 0+128")
	return r, d, w
}

func TestBiosInACellAreIssuedInTheSamePass(t *testing.T) {
	r, d, w1 := zeroing(t)
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	w3 := r.send(d, blk.Write, 0, 16, 8, 3)
	r.Sim.Run()
	r.held("d", "write 0+128")
	r.release("d")
	r.step()
	r.held("d", "write 0+8", "write 8+8", "write 16+8")
	r.Gate("d").ReleaseAll()
	for _, w := range []*ioT{w1, w2, w3} {
		r.Done(w, blk.OK)
	}
	r.Gate("d").Open()
	r.Want(d, 8, 8, 8, 2)
	r.Want(d, 24, 104, 24, 0)
}

func TestFUAInACellWaitsForACommit(t *testing.T) {
	r, d, w1 := zeroing(t)
	w2 := r.send(d, blk.Write, blk.FUA, 8, 8, 2)
	w3 := r.send(d, blk.Write, 0, 16, 8, 3)
	r.Gate("m").Forget()
	r.Sim.Run()
	r.release("d")
	r.step()
	r.Sim.Run()
	// The commit that w2 needs begins with a flush of the data.
	r.held("d", "write 0+8", "write 16+8", "flush 0+0")
	r.release("d")
	r.release("d")
	r.Done(w1, blk.OK)
	r.Done(w3, blk.OK)
	r.Held(w2)
	if n := len(r.Gate("m").Submitted()); n != 0 {
		t.Fatalf("%d metadata requests before the data is flushed", n)
	}
	r.release("d")
	r.Sim.Run()
	r.held("d", "write 8+8 fua")
	r.Held(w2)
	r.release("d")
	r.Done(w2, blk.OK)
}

func TestDiscardWaitsForBiosIssuedFromACell(t *testing.T) {
	r, d, _ := zeroing(t)
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	r.release("d")
	r.step()
	r.held("d", "write 0+8", "write 8+8")
	r.release("d")
	x := r.send(d, blk.Discard, 0, 0, 128, 0)
	r.Sim.Run()
	r.Held(x)
	r.held("d", "write 8+8")
	if got := r.info(d)[0]; got != "128" {
		t.Fatalf("%s sectors mapped while a write is under way", got)
	}
	r.release("d")
	r.Sim.Run()
	r.Done(w2, blk.OK)
	r.held("d", "discard 0+128")
	if got := r.info(d)[0]; got != "0" {
		t.Fatalf("%s sectors mapped after the discard", got)
	}
	r.release("d")
	r.Sim.Run()
	r.Done(x, blk.OK)
}

// The discard comes between the release of the cell and the issue of the bios that
// were in it.
func TestDiscardBetweenReleaseAndIssueWaits(t *testing.T) {
	r, d, _ := zeroing(t)
	p, th := r.internals(d)
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	var x *ioT
	p.tests.afterRelease = func() {
		p.tests.afterRelease = nil
		x = r.send(d, blk.Discard, 0, 0, 128, 0)
		th.processBios()
	}
	r.release("d")
	r.step()
	r.Held(x)
	if got := r.info(d)[0]; got != "128" {
		t.Fatalf("%s sectors mapped while bios are issued", got)
	}
	r.held("d", "write 0+8", "write 8+8")
	r.release("d")
	r.Sim.Run()
	r.Held(x)
	r.release("d")
	r.Sim.Run()
	r.Done(w2, blk.OK)
	r.held("d", "discard 0+128")
	r.release("d")
	r.Sim.Run()
	r.Done(x, blk.OK)
}

func TestOverwriteIsIssuedOnce(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	r.Sim.Run()
	r.Gate("d").Shut()
	w1 := r.send(d, blk.Write, 0, 0, 128, 1)
	r.step()
	r.held("d", "write 0+128")
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	var atW2 int
	w2.End = func(*blk.Bio) { w2.Ends++ }
	w1.End = func(*blk.Bio) { w1.Ends++; atW2 = len(r.Gate("d").Submitted()) }
	r.Gate("d").Forget()
	r.release("d")
	r.Held(w1)
	r.step()
	r.Done(w1, blk.OK)
	r.held("d", "write 8+8")
	if atW2 != 2 {
		t.Errorf("the overwrite ended with %d requests at the disk; the other write must be issued first", atW2)
	}
	r.release("d")
	r.Done(w2, blk.OK)
	r.Gate("d").Open()
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, 8, 8, 8, 2)
	r.Want(d, 16, 112, 16, 1)
}

func TestFailedZeroingFailsAllInTheCell(t *testing.T) {
	r, d, w1 := zeroing(t)
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	w3 := r.send(d, blk.Write, blk.FUA, 16, 8, 2)
	r.Sim.Run()
	r.Gate("d").Fail(r.Gate("d").Held()[0].Index, blk.IOErr)
	r.Sim.Run()
	for _, w := range []*ioT{w1, w2, w3} {
		r.Done(w, blk.IOErr)
	}
	r.held("d")
	r.Gate("d").Open()
	r.usage(0)
	r.Write(d, 0, 8, 4)
	r.Want(d, 0, 8, 0, 4)
}

func TestFailedOverwriteFailsAllInTheCell(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	r.Sim.Run()
	r.Gate("d").Shut()
	w1 := r.send(d, blk.Write, 0, 0, 128, 1)
	r.step()
	w2 := r.send(d, blk.Write, 0, 8, 8, 2)
	r.Gate("d").Fail(r.Gate("d").Held()[0].Index, blk.IOErr)
	r.Sim.Run()
	r.Done(w1, blk.IOErr)
	r.Done(w2, blk.IOErr)
	r.Gate("d").Open()
	r.Want(d, 0, 128, 0, 0)
	r.Write(d, 0, 128, 4)
	r.Write(d, 128, 128, 5)
	r.Want(d, 0, 128, 0, 4)
}
