package snapshot

import (
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// Each step of the protocol in persistent.go with a power cut after it.

// gatedPower is a powered stack with chunk 2, so 64 entries in an area of two
// sectors, behind gates.
func gatedPower(t *testing.T) (*powered, *rig) {
	p := newPowered(t, 1, 2, 512)
	e := stepped()
	r := newRig(t, e, disks{})
	r.gate("O", p.o)
	r.gate("C", p.c)
	return p, r
}

// cutOften checks many of the outcomes that a power cut can have now.
func (p *powered) cutOften() {
	n := 50
	if race && testing.Short() {
		n = 10
	}
	for range n {
		p.cut(p.o, p.c)
	}
}

// up is a gatedPower with origin o and snapshot s, in which n chunks from 100 on
// have exceptions.
func up(t *testing.T, n uint64) (p *powered, r *rig, s, o *dm.Device) {
	p, r = gatedPower(t)
	s = r.device("s", 512, "snapshot O C P 2")
	o = r.device("o", 512, "snapshot-origin O")
	for i := range n {
		r.wantEnd(&p.begin(s, p.snap, 200+2*i, 1).io, blk.OK)
	}
	p.flush(r, s, p.snap)
	r.forget()
	r.shut()
	return p, r, s, o
}

func TestCrashAfterData(t *testing.T) {
	p, r, s, o := up(t, 3)
	p.begin(s, p.snap, 40, 1)
	p.begin(o, p.orig, 44, 2)
	r.release("O", blk.Read, 40)
	r.release("O", blk.Read, 44)
	p.cutOften()
	r.release("C", blk.Write, 10)
	p.cutOften()
	r.wantHeld("C", 1)
	r.release("C", blk.Write, 12)
	p.cutOften() // the area write is held
}

func TestCrashAfterZeroing(t *testing.T) {
	p, r, s, _ := up(t, 63)
	p.begin(s, p.snap, 40, 2)
	r.release("C", blk.Write, 2*(2+63))
	r.wantHeld("C", 1)
	p.cutOften()
	r.release("C", blk.WriteZeroes, 2*(1+65))
	p.cutOften()
	r.release("C", blk.Write, 2)
	p.cutOften()
}

func TestCrashInAreaWrite(t *testing.T) {
	// Without FUA below, the write may be there in part until the flush.
	p, r, s, o := up(t, 30)
	for i := range uint64(4) { // across the border of two sectors
		p.begin(s, p.snap, 40+4*i, 2)
		p.begin(o, p.orig, 60+4*i, 2)
	}
	r.gates["O"].ReleaseAll()
	r.run()
	for len(r.gates["C"].Held()) != 1 || r.gates["C"].Held()[0].Sector != 2 {
		r.gates["C"].ReleaseAll()
		r.run()
	}
	r.release("C", blk.Write, 2)
	r.wantHeld("C", 1) // the flush that stands in for FUA
	p.cutOften()
}

func TestCrashAfterReport(t *testing.T) {
	p, r, s, o := up(t, 3)
	p.begin(s, p.snap, 40, 1)
	p.begin(o, p.orig, 44, 2)
	for range 4 {
		r.gates["O"].ReleaseAll()
		r.gates["C"].ReleaseAll()
		r.run()
		p.cutOften()
	}
	r.open()
	p.flush(r, s, p.snap)
	p.flush(r, o, p.orig)
	p.cutOften()
}

func TestCrashInMerge(t *testing.T) {
	p, r, s, o := up(t, 40)
	r.open()
	r.remove("o")
	r.suspend("s")
	p.merges = true
	r.ok(r.load("m", 512, "snapshot-merge O C P 2"))
	r.shut()
	r.ok(r.resume("m"))
	for range 12 {
		r.gates["O"].ReleaseAll()
		r.gates["C"].ReleaseAll()
		r.run()
		p.cutOften()
	}
	r.wantInfo("m", "4/2048 4")
	_, _ = s, o
}

func TestCrashInCreation(t *testing.T) {
	p, r := gatedPower(t)
	r.shut()
	loaded := false
	sim(r).Go("load", func() { r.ok(r.load("s", 512, "snapshot O C P 2")); loaded = true })
	for r.run(); !loaded; r.run() {
		p.cutOften()
		r.gates["C"].ReleaseAll()
	}
	p.cutOften()
}

// A store is dropped because it is full. Before the header is there the snapshot
// has its content; afterwards it is invalid.
func TestCrashInDrop(t *testing.T) {
	p, r, s, o := up(t, 3)
	nowValid := func(c *memdev.Device) bool {
		h, fresh, err := parseHeader(headerOf(t, c))
		if err != nil || fresh {
			t.Fatal("no header", err)
		}
		return h.valid
	}
	r.snap("s").invalidate("a test")
	w := p.begin(o, p.orig, 40, 2)
	r.wantWaiting(&w.io)
	p.cutOften()
	if !nowValid(p.c.CrashCloneNone()) {
		t.Error("invalid too early")
	}
	r.release("C", blk.Write, 0) // written, not flushed
	r.wantWaiting(&w.io)
	for seed := range uint64(50) {
		if c := p.c.CrashClone(seed); nowValid(c) {
			p.verify(p.o.CrashClone(seed), c, p.snap.Clone(), p.orig.Clone())
		}
	}
	r.release("C", blk.Flush, 0)
	if nowValid(p.c.CrashCloneNone()) {
		t.Error("still valid")
	}
	r.wantHeld("O", 1)
	r.open()
	r.wantEnd(r.read(s, 0, 1), blk.IOErr)
}

func headerOf(t *testing.T, d blk.Device) []byte {
	p := make([]byte, 512)
	if err := blk.ReadSectors(env.Real(), d, p, 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// Entries that a torn area write left behind the end of the list do not become valid
// when the list grows up to them.
func TestEntriesBehindTheEndAreWiped(t *testing.T) {
	r := newGated(t, stepped(), 512, 2048)
	s := r.device("s", 512, "snapshot O C P 2")
	for i := range uint64(20) {
		r.wantEnd(r.write(s, 2*i, 2, 2), blk.OK)
	}
	r.remove("s")
	area := make([]byte, 1024)
	r.ok(blk.ReadSectors(r.e, r.disks["C"], area, 2))
	putEntry(area, 32, 200, 50)
	r.ok(blk.WriteSectors(r.e, r.disks["C"], area, 2, 0))
	for i := uint64(20); i < 40; i += 4 {
		s = r.device("s", 512, "snapshot O C P 2")
		for j := range uint64(4) {
			r.wantEnd(r.write(s, 2*(i+j), 2, 2), blk.OK)
		}
		r.wantData(s, 0, 2*(i+4), 2)
		r.wantData(s, 2*(i+4), 512-2*(i+4), 1)
		r.remove("s")
	}
}
