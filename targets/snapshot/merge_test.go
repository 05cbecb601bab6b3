package snapshot

import (
	"fmt"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

func sim(r *rig) *env.Sim { return r.e.(*env.Sim) }

// merging turns snapshot s into the merge target m.
func (r *rig) toMerge(sectors uint64, table string) {
	r.Helper()
	r.suspend("s")
	r.ok(r.load("m", sectors, "snapshot-merge "+table))
	r.ok(r.resume("m"))
	r.remove("s")
}

func TestMergeCopiesAllBack(t *testing.T) {
	for _, e := range []env.Env{stepped(), env.NewSim(5), env.Real()} {
		r := newGated(t, e, 8192, 16384)
		s := r.device("s", 8192, "snapshot O C P 8")
		seeds := map[uint64]uint64{}
		for i := uint64(0); i < 600; i++ { // more than two areas
			c := i * 389 % 1024
			seeds[c] = 2 + i
			r.wantEnd(r.write(s, c*8, 8, 2+i), blk.OK)
		}
		r.toMerge(8192, "O C P 8")
		m := r.snap("m").merge
		m.wait.Until(func() bool { return !m.isRunning() })
		r.wantInfo("m", "16/16384 16")
		for c := uint64(0); c < 1024; c++ {
			seed := seeds[c]
			if seed == 0 {
				seed = 1
			}
			r.wantData(r.dev("m"), c*8, 8, seed)
			r.wantData(r.disks["O"], c*8, 8, seed)
		}
		r.snap("m").body.Load().complete.all(func(c, w uint64) { t.Errorf("exception %d→%d left", c, w) })
		r.remove("m")
	}
}

// gatedMerge is a merge of chunks 5 and 6, and of 20, behind shut gates, the
// last first. Another snapshot is named D0.
func gatedMerge(t *testing.T) *rig {
	r := newGated(t, stepped(), 256, 512)
	r.gate("D", memdev.New(512))
	s := r.device("s", 256, "snapshot O C P 8")
	r.device("d", 256, "snapshot O D P 8")
	for _, c := range []uint64{20, 5, 6} {
		r.wantEnd(r.write(s, c*8, 8, 2), blk.OK)
	}
	r.suspend("s")
	r.ok(r.load("m", 256, "snapshot-merge O C P 8"))
	r.forget()
	r.shut()
	t.Cleanup(func() { r.open(); r.snap("m").mustBeIdle(t) })
	r.ok(r.resume("m"))
	r.run()
	r.remove("s")
	return r
}

func TestMergeStepByStep(t *testing.T) {
	r := gatedMerge(t)
	// The other snapshot receives its copies first.
	r.wantTrace("O", "read 40+8", "read 48+8")
	r.wantTrace("C")
	r.release("O", blk.Read, 40)
	r.release("O", blk.Read, 48)
	r.release("D", blk.Write, 16)
	r.release("D", blk.Write, 24)
	r.wantTrace("C")
	r.release("D", blk.Write, 8) // the record
	r.wantTrace("C", "read 24+16")
	r.release("C", blk.Read, 24)
	r.wantTrace("O", "read 40+8", "read 48+8", "write 40+16")
	r.release("O", blk.Write, 40)
	r.wantTrace("O", "read 40+8", "read 48+8", "write 40+16", "flush 0+0")
	r.wantTrace("C", "read 24+16")
	r.release("O", blk.Flush, 0)
	r.wantTrace("C", "read 24+16", areaWrite)
	r.wantInfo("m", "40/512 16")
	r.release("C", blk.Write, 8)
	r.wantInfo("m", "24/512 16")
	r.open()
	r.wantInfo("m", "16/512 16")
	for _, c := range []uint64{20, 5, 6} {
		r.wantData(r.disks["O"], c*8, 8, 2)
	}
	r.wantData(r.dev("d"), 0, 256, 1)
}

func TestWritesWhileMerging(t *testing.T) {
	r := gatedMerge(t)
	m := r.dev("m")
	r.gates["D"].Open()
	// Before the run is claimed, a write goes to the COW device and the merge waits
	// for it.
	early := r.write(m, 41, 1, 3)
	r.wantTrace("C", "write 25+1")
	r.release("O", blk.Read, 40)
	r.release("O", blk.Read, 48)
	r.wantTrace("C", "write 25+1")
	// Claimed: writes to the run wait; reads, and I/O elsewhere, do not.
	late := r.write(m, 50, 2, 4)
	read := r.read(m, 50, 2)
	other := r.write(m, 163, 1, 5)
	none := r.write(m, 80, 8, 6)
	r.wantTrace("C", "write 25+1", "read 34+2", "write 19+1")
	r.release("C", blk.Write, 25)
	r.wantEnd(early, blk.OK)
	r.wantTrace("C", "write 25+1", "read 34+2", "write 19+1", "read 24+16")
	r.wantWaiting(late, read, other, none)
	r.gates["C"].Open()
	r.run()
	r.wantEnd(read, blk.OK)
	r.wantWaiting(late)
	r.open()
	for _, i := range []*io{late, other, none} {
		r.wantEnd(i, blk.OK)
	}
	r.wantInfo("m", "16/512 16")
	o := r.disks["O"]
	r.wantData(o, 40, 1, 2)
	r.wantData(o, 41, 1, 3)
	r.wantData(o, 50, 2, 4)
	r.wantData(o, 163, 1, 5)
	r.wantData(o, 80, 8, 6)
	r.wantData(r.dev("d"), 0, 256, 1)
	r.wantData(m, 42, 6, 2)
}

func TestMergeStopsAndGoesOn(t *testing.T) {
	r := gatedMerge(t)
	r.gates["O"].Open()
	r.gates["D"].Open()
	r.run()
	r.wantTrace("C", "read 24+16")
	stopped := false
	sim(r).Go("suspend", func() { r.suspend("m"); stopped = true })
	r.run()
	if stopped {
		t.Fatal("suspended in the middle of a round")
	}
	r.gates["C"].Open()
	if r.run(); !stopped {
		t.Fatal("not suspended")
	}
	r.wantInfo("m", "24/512 16")
	r.wantEnd(r.write(r.dev("d"), 0, 8, 9), blk.OK)
	r.ok(r.resume("m"))
	r.run()
	r.wantInfo("m", "16/512 16")
	r.wantData(r.disks["O"], 160, 8, 2)
}

func TestMergeFails(t *testing.T) {
	for name, fail := range map[string]func(r *rig){
		"reading":  func(r *rig) { r.fail("C", blk.Read, 24) },
		"writing":  func(r *rig) { r.gates["C"].Open(); r.run(); r.fail("O", blk.Write, 40) },
		"flushing": func(r *rig) { r.gates["C"].Open(); r.run(); r.release("O", blk.Write, 40); r.fail("O", blk.Flush, 0) },
		"clearing": func(r *rig) {
			r.release("C", blk.Read, 24)
			r.gates["O"].Open()
			r.run()
			r.fail("C", blk.Write, 8)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := gatedMerge(t)
			r.gates["D"].Open()
			r.release("O", blk.Read, 40)
			r.release("O", blk.Read, 48)
			w := r.write(r.dev("m"), 50, 2, 4)
			fail(r)
			r.wantInfo("m", "Merge failed")
			r.wantEnd(w, blk.IOErr)
			r.open()
			unclear := name == "clearing" // which copy the next start will see
			if unclear {
				r.wantEnd(r.write(r.dev("m"), 50, 2, 5), blk.IOErr)
				r.wantEnd(r.write(r.dev("m"), 80, 2, 5), blk.OK)
			} else {
				r.wantEnd(r.write(r.dev("m"), 50, 2, 5), blk.OK) // I/O goes on
				r.wantData(r.dev("m"), 50, 2, 5)
			}
			r.wantData(r.dev("m"), 40, 8, 2)
			r.remove("m")
			r.device("m", 256, "snapshot-merge O C P 8")
			r.run()
			r.wantInfo("m", "16/512 16")
			if !unclear {
				r.wantData(r.disks["O"], 50, 2, 5)
			}
			r.wantData(r.disks["O"], 40, 8, 2)
		})
	}
}

func TestMergeFlushesBothDevices(t *testing.T) {
	r := gatedMerge(t)
	r.open()
	r.forget()
	r.wantEnd(r.start(r.dev("m"), blk.Flush, 0, 0, 0, 0), blk.OK)
	r.wantTrace("O", "flush 0+0")
	r.wantTrace("C", "flush 0+0")
	r.wantEnd(r.start(r.dev("m"), blk.Discard, 0, 8, 0, 0), blk.NotSupported)
}

func TestOnlyOneMergesAtATime(t *testing.T) {
	r := gatedMerge(t)
	r.suspend("d")
	wantErrno(t, r.load("m2", 256, "snapshot-merge O D P 8"), syscall.EINVAL)
	r.open()
	r.ok(r.resume("d"))
}

// A snapshot that is resumed during the merge of another sees no write of the merge in flight.
func TestNewSnapshotWhileMerging(t *testing.T) {
	r := gatedMerge(t)
	r.open()
	r.gate("E", memdev.New(1024))
	r.suspend("m")
	e := r.device("e", 256, "snapshot O E N 4")
	r.ok(r.resume("m"))
	r.wantEnd(r.write(r.dev("m"), 100, 40, 7), blk.OK)
	r.wantData(e, 100, 40, 1)
	if n := r.dev("m").Target(0).PartialUnit; n != 4 {
		t.Errorf("bios cut at %d", n)
	}
}

func TestMergeWithLargerAndSmallerSnapshots(t *testing.T) {
	for seed := range uint64(10) {
		r := newGated(t, env.NewSim(seed), 1024, 4096)
		r.ok(r.load("s", 1024, "snapshot O C P 16"))
		r.ok(r.resume("s"))
		for i, c := range []uint64{4, 64, 16} {
			n := fmt.Sprintf("D%d", i)
			r.gate(n, memdev.New(4096))
			r.device(n, 1024, fmt.Sprintf("snapshot O %s P %d", n, c))
		}
		for i := uint64(0); i < 40; i++ {
			r.wantEnd(r.write(r.dev("s"), i*i*7%1000, 11, 2), blk.OK)
		}
		want := make([]byte, 1024*512)
		r.ok(blk.ReadSectors(r.e, r.dev("s"), want, 0))
		r.toMerge(1024, "O C P 16")
		r.run()
		r.wantInfo("m", "32/4096 32")
		got := make([]byte, 1024*512)
		r.ok(blk.ReadSectors(r.e, r.disks["O"], got, 0))
		if string(got) != string(want) {
			t.Fatalf("seed %d: the origin is not what the snapshot was", seed)
		}
		for i := range 3 {
			r.wantData(r.dev(fmt.Sprintf("D%d", i)), 0, 1024, 1)
		}
	}
}
