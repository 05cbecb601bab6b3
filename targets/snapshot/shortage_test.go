package snapshot

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

// fullDisk is a disk that accepts a number of writes and then has no space until it is
// given some.
type fullDisk struct {
	blk.Device
	takes, refused int
	roomy          bool
}

func (d *fullDisk) Submit(b *blk.Bio) {
	if (b.Op == blk.Write || b.Op == blk.WriteZeroes) && !d.roomy {
		if d.takes == 0 {
			d.refused++
			b.Complete(blk.NoSpace)
			return
		}
		d.takes--
	}
	d.Device.Submit(b)
}

func (d *fullDisk) Close() error { return nil }

// newFull is a rig with origin o and snapshot s of chunk 2, 64 of them in an area,
// whose disk accepts n writes.
func newFull(t *testing.T, kind string, n int) (r *rig, full *fullDisk) {
	r = newRig(t, stepped(), disks{})
	o := memdev.New(512)
	r.ok(blk.WriteSectors(r.e, o, blktest.Pattern(0, 512, 1), 0, 0))
	full = &fullDisk{Device: memdev.New(2048), takes: n}
	r.disks["O"], r.disks["C"] = o, full
	t.Cleanup(func() { full.roomy = true })
	r.device("o", 512, "snapshot-origin O")
	if err := r.load("s", 512, "snapshot O C "+kind+" 2"); err != nil {
		wantErrno(t, err, syscall.ENOSPC) // and nothing has happened
		full.roomy = true
		r.ok(r.load("s", 512, "snapshot O C "+kind+" 2"))
		full.roomy = false
	}
	r.ok(r.resume("s"))
	return r, full
}

// put is a write in flight, and the data that must be read afterwards.
type put struct {
	*io
	sector, sectors, seed uint64
	origin                bool
}

// puts sends writes of every kind to about 100 chunks.
func puts(r *rig) (ps []put) {
	s, o := r.dev("s"), r.dev("o")
	to := func(origin bool, sector, sectors, seed uint64) {
		d := s
		if origin {
			d = o
		}
		ps = append(ps, put{r.write(d, sector, sectors, seed), sector, sectors, seed, origin})
	}
	for i := range uint64(12) {
		at := i * 40
		to(false, at, 2, 2)    // a whole chunk
		to(false, at+3, 1, 3)  // a part of one
		to(false, at+4, 8, 4)  // four at once
		to(true, at+20, 1, 5)  // of the origin
		to(true, at+24, 4, 6)  // two of the origin
		to(false, at+30, 1, 7) // two in the same chunk
		to(false, at+31, 1, 8)
	}
	return ps
}

// check reads the snapshot: writes that succeeded are there.
func (p put) check(r *rig) {
	r.Helper()
	seed := p.seed
	switch {
	case p.origin:
		seed = 1
	case !p.ended() || p.Status() != blk.OK:
		r.wantEnd(r.read(r.dev("s"), p.sector, p.sectors), blk.OK) // the old or the new
		return
	}
	r.wantData(r.dev("s"), p.sector, p.sectors, seed)
}

// The disk below the store is full from each of its writes on, and later gets space:
// nothing fails, nothing is lost.
func TestSpaceRunsOutAtEachWrite(t *testing.T) {
	step := 1
	if testing.Short() {
		step = 7
	}
	for _, kind := range []string{"P", "PO", "N"} {
		for n := 0; ; n += step {
			if runOut(t, kind, n) == 0 {
				t.Logf("%s: %d writes", kind, n)
				break
			}
			if t.Failed() {
				t.Fatalf("%s: space for %d writes", kind, n)
			}
		}
	}
}

func runOut(t *testing.T, kind string, n int) (refused int) {
	r, full := newFull(t, kind, n)
	defer func() { r.ok(r.c.Close()) }()
	ps := puts(r)
	for range 3 {
		sim(r).Advance(10 * time.Second)
		for _, p := range ps {
			p.check(r)
		}
	}
	r.wantEnd(r.start(r.dev("s"), blk.Flush, 0, 0, 0, 0), blk.OK)
	refused = full.refused
	full.roomy = true
	sim(r).Advance(5 * time.Second)
	for _, p := range ps {
		r.wantEnd(p.io, blk.OK)
		p.check(r)
		if p.origin {
			r.wantData(r.dev("o"), p.sector, p.sectors, p.seed)
		}
	}
	wantCount(t, r.snap("s"), r.info("s"))
	r.snap("s").mustBeIdle(t)
	if kind != "N" {
		r.remove("s")
		r.device("s", 512, "snapshot O C "+kind+" 2")
		for _, p := range ps {
			p.check(r)
		}
	}
	return refused
}

// mayWait reports whether the write is one of whole chunks: it waits on if its data is in
// the store, since it must not fail and then appear.
func (p put) mayWait() bool { return !p.origin && (p.sector|p.sectors)%2 == 0 }

// now is what the snapshot holds where a write has failed; nil where none has.
func (p put) now(r *rig) []byte {
	if p.origin || !p.ended() || p.Status() == blk.OK {
		return nil
	}
	buf := make([]byte, p.sectors*512)
	r.ok(blk.ReadSectors(r.e, r.dev("s"), buf, p.sector))
	return buf
}

// No space comes in time: writes fail, and nothing else does. A failed write does not
// appear when there is space.
func TestWritesFailWhenSpaceDoesNotCome(t *testing.T) {
	step := 2
	if testing.Short() {
		step = 9
	}
	for _, kind := range []string{"P", "N"} {
		for n := 3; n < 90; n += step {
			r, full := newFull(t, kind, n)
			ps := puts(r)
			sim(r).Advance(59 * time.Second)
			for _, p := range ps {
				if p.ended() && p.Status() != blk.OK {
					t.Fatal("failed too early")
				}
			}
			sim(r).Advance(3 * time.Second)
			failed := 0
			was := make([][]byte, len(ps))
			for i, p := range ps {
				if !p.ended() && !p.mayWait() || p.ended() && p.Status() != blk.OK && p.Status() != blk.NoSpace {
					t.Fatalf("%v has not ended, or with %v", &p.Bio, p.Status())
				}
				if p.ended() && p.Status() == blk.NoSpace {
					failed++
				}
				p.check(r)
				was[i] = p.now(r)
			}
			if failed == 0 && full.refused > 0 {
				t.Error("nothing failed")
			}
			if full.refused > 0 {
				r.wantEnd(r.write(r.dev("s"), 500, 1, 9), blk.NoSpace)
				r.wantEnd(r.write(r.dev("o"), 502, 1, 9), blk.NoSpace)
			}
			full.roomy = true
			sim(r).Advance(5 * time.Second)
			for i, p := range ps {
				if !p.ended() {
					t.Fatalf("%v has not ended", &p.Bio)
				}
				p.check(r)
				if was[i] != nil && !bytes.Equal(p.now(r), was[i]) {
					t.Errorf("%v has failed, and happened later", &p.Bio)
				}
			}
			r.wantEnd(r.write(r.dev("s"), 500, 1, 9), blk.OK)
			r.wantEnd(r.write(r.dev("o"), 502, 1, 9), blk.OK)
			r.wantData(r.dev("s"), 500, 1, 9)
			r.wantData(r.dev("s"), 501, 3, 1)
			r.snap("s").mustBeIdle(t)
			r.ok(r.c.Close())
			if t.Failed() {
				t.Fatalf("%s: space for %d writes", kind, n)
			}
		}
	}
}

func TestWritesFailAtOnceIfTheyAreToldTo(t *testing.T) {
	r, full := newFull(t, "P", 10)
	r.snap("s").registry.failNoSpace.Set(1)
	for _, p := range puts(r) {
		r.wantEnd(p.io, p.Status())
		p.check(r)
	}
	if full.refused == 0 {
		t.Fatal("there was space")
	}
}

func TestNoTimeLimit(t *testing.T) {
	r, full := newFull(t, "P", 10)
	r.snap("s").registry.noSpaceTimeout.Set(0)
	ps := puts(r)
	long := time.Hour
	if testing.Short() {
		long = 5 * time.Minute // five times the limit that there is by default
	}
	sim(r).Advance(long)
	full.roomy = true
	sim(r).Advance(5 * time.Second)
	for _, p := range ps {
		r.wantEnd(p.io, blk.OK)
	}
}

// A handover comes while chunks are being copied for which no space came in time. It
// waits only for space, and nothing is lost.
func TestHandoverWhileThereIsNoSpace(t *testing.T) {
	for n := 2; n < 8; n++ {
		r, full := newFull(t, "P", n)
		var ws []*io
		for i := range uint64(5) {
			ws = append(ws, r.write(r.dev("o"), 10*i, 1, 5))
		}
		sim(r).Advance(70 * time.Second)
		r.ok(r.load("s", 512, "snapshot O C P 2"))
		done := false
		sim(r).Go("resume", func() { r.ok(r.resume("s")); done = true })
		sim(r).Advance(10 * time.Second)
		if done {
			t.Fatal("resumed while chunks are being copied")
		}
		full.roomy = true
		sim(r).Advance(2 * time.Second)
		if !done {
			t.Fatal("not resumed")
		}
		for i, w := range ws {
			if seed := uint64(1); w.Status() == blk.NoSpace {
				r.wantData(r.dev("o"), uint64(10*i), 1, seed)
			}
		}
		r.wantData(r.dev("s"), 0, 512, 1)
	}
}

// A snapshot that is removed while writes to its origin wait keeps its content.
func TestRemovedWhileThereIsNoSpace(t *testing.T) {
	for n := 2; n < 8; n++ {
		r, full := newFull(t, "P", n)
		var ws []*io
		for i := range uint64(5) {
			ws = append(ws, r.write(r.dev("o"), 10*i, 1, 5))
		}
		sim(r).Advance(3 * time.Second)
		sim(r).Go("remove", func() { r.remove("s") })
		sim(r).Advance(3 * time.Second)
		for i, w := range ws {
			r.wantEnd(w, w.Status())
			if w.Status() == blk.NoSpace {
				r.wantData(r.dev("o"), uint64(10*i), 1, 1)
			}
		}
		full.roomy = true
		r.device("s", 512, "snapshot O C P 2")
		r.wantData(r.dev("s"), 0, 512, 1)
	}
}

// fullMerge is a merge of chunks, some of them runs, into a disk and from a store that
// each accept a number of writes.
func fullMerge(t *testing.T, chunks uint64, origin, store int) (r *rig, o, c *fullDisk) {
	r, c = newFull(t, "P", 1<<30)
	r.remove("o")
	for i := range chunks {
		r.wantEnd(r.write(r.dev("s"), i*i*6%511/2*2, 1+i%2, 2), blk.OK)
	}
	r.suspend("s")
	o = &fullDisk{Device: r.disks["O"], takes: origin}
	r.disks["O"] = o
	c.takes = store
	r.ok(r.load("m", 512, "snapshot-merge O C P 2"))
	r.ok(r.resume("m"))
	r.remove("s")
	return r, o, c
}

func TestMergeIntoAFullDisk(t *testing.T) {
	for n := range 60 {
		if testing.Short() && n%6 > 1 {
			continue
		}
		for _, origin := range []bool{true, false} {
			r, o, c := fullMerge(t, 70, 1<<30, n)
			if origin {
				r, o, c = fullMerge(t, 70, n, 1<<30)
			}
			before := make([]byte, 512*512)
			sim(r).Advance(10 * time.Second)
			r.ok(blk.ReadSectors(r.e, r.dev("m"), before, 0))
			if n%2 == 1 { // it may be stopped, and goes on
				sim(r).Go("suspend", func() { r.suspend("m"); r.ok(r.resume("m")) })
				sim(r).Advance(10 * time.Second)
			}
			if got := r.info("m"); got == "Merge failed" || got == "Invalid" {
				t.Fatal(got)
			}
			o.roomy, c.roomy = true, true
			sim(r).Advance(10 * time.Second)
			r.wantInfo("m", "4/2048 4")
			after := make([]byte, 512*512)
			r.ok(blk.ReadSectors(r.e, r.disks["O"], after, 0))
			if string(before) != string(after) {
				t.Fatal("the origin is not what the snapshot was")
			}
			r.ok(r.c.Close())
		}
	}
}

// A merge that met an error continues with the next resume, even if the device was a
// snapshot in between.
func TestFailedMergeIsTakenUp(t *testing.T) {
	for _, between := range []bool{false, true} {
		blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
			r, _, _ := fullMerge(t, 12, 0, 0)
			o, c := r.disks["O"], r.disks["C"]
			sim(r).Go("suspend", func() { r.suspend("m") })
			sim(r).Advance(2 * time.Second)
			want := make([]byte, 512*512)
			ctl := r.c
			r.ok(ctl.Close())
			o.(*fullDisk).roomy, c.(*fullDisk).roomy = true, true
			ds := disks{"O": f.Wrap(o), "C": f.Wrap(c)}
			r.c = dm.NewControl(r.e, ds, Types()...)
			if r.load("m", 512, "snapshot-merge O C P 2") != nil {
				r.ok(r.c.Close())
				return
			}
			r.ok(r.resume("m"))
			if blk.ReadSectors(r.e, r.dev("m"), want, 0) != nil {
				r.ok(r.c.Close())
				return
			}
			r.run()
			failed := r.info("m") == "Merge failed"
			for range 3 { // a lasting failure does not go away
				r.suspend("m")
				if between {
					r.ok(r.load("m", 512, "snapshot O C P 2"))
					r.ok(r.resume("m"))
					r.suspend("m")
					r.ok(r.load("m", 512, "snapshot-merge O C P 2"))
				}
				r.ok(r.resume("m"))
				r.run()
			}
			got := make([]byte, 512*512)
			if blk.ReadSectors(r.e, o, got, 0) == nil && r.info("m") == "4/2048 4" && string(got) != string(want) {
				t.Error("the origin is not what the snapshot was")
			}
			if failed && strings.Contains(f.String(), "sticky=false") && r.info("m") != "4/2048 4" {
				t.Errorf("not taken up: %s", r.info("m"))
			}
			r.ok(r.c.Close())
		})
	}
}

// Clearing a run fails although it has reached the disk. The table becomes a snapshot
// again; what is then written to the run is there at the next start.
func TestUnclearRunIsRememberedInAHandover(t *testing.T) {
	for _, again := range []bool{false, true} {
		r := newGated(t, env.NewStepped(), 256, 512)
		disk := memdev.New(512)
		r.gate("C", disk)
		s := r.device("s", 256, "snapshot O C P 8")
		for _, c := range []uint64{20, 5, 6} {
			r.wantEnd(r.write(s, c*8, 8, 2), blk.OK)
		}
		r.shut()
		r.toMerge(256, "O C P 8")
		r.release("C", blk.Read, 24)
		r.release("O", blk.Write, 40)
		r.release("O", blk.Flush, 0)
		cleared := make([]byte, 8*512)
		putEntry(cleared, 0, 20, 2)
		r.ok(blk.WriteSectors(env.Real(), disk, cleared, 8, 0))
		r.fail("C", blk.Write, 8)
		r.wantInfo("m", "Merge failed")
		r.suspend("m")
		r.ok(r.load("m", 256, "snapshot O C P 8"))
		done := false
		sim(r).Go("resume", func() { r.ok(r.resume("m")); done = true })
		r.run()
		if again { // it cannot be recorded now, either
			r.fail("C", blk.Write, 8)
			r.open()
			if !done {
				t.Fatal("not resumed")
			}
			o := r.device("o", 256, "snapshot-origin O")
			r.wantEnd(r.write(r.dev("m"), 44, 1, 3), blk.IOErr)
			r.wantEnd(r.write(r.dev("m"), 16, 64, 3), blk.IOErr)
			r.wantEnd(r.write(o, 44, 1, 4), blk.IOErr)
			r.wantEnd(r.write(r.dev("m"), 8, 1, 3), blk.OK) // recorded with what was in doubt
			r.remove("o")
		}
		r.open()
		r.wantEnd(r.write(r.dev("m"), 44, 1, 3), blk.OK)
		r.wantEnd(r.start(r.dev("m"), blk.Flush, 0, 0, 0, 0), blk.OK)
		r.remove("m")
		r.device("s", 256, "snapshot O C P 8")
		r.wantData(r.dev("s"), 44, 1, 3)
		r.wantData(r.dev("s"), 40, 4, 2)
		r.wantData(r.dev("s"), 45, 11, 2)
	}
}

// A store of several areas, one of which a merge has left full, records again, and
// places behind a hole are not allocated twice.
func TestSnapshotAfterAMergeThatStopped(t *testing.T) {
	r := newGated(t, stepped(), 1024, 4096)
	s := r.device("s", 1024, "snapshot O C P 2")
	for i := range uint64(64) {
		r.wantEnd(r.write(s, 4*i, 1, 2), blk.OK)
		if i == 30 { // a hole: places that a power cut has left behind
			p := r.snap("s").body.Load().store.(*persistent)
			p.startAt(p.free.Load() + 3)
		}
	}
	r.wantEnd(r.write(s, 600, 1, 2), blk.OK)
	r.gates["O"].Shut()
	r.toMerge(1024, "O C P 2")
	r.release("O", blk.Write, 600)
	r.release("O", blk.Flush, 0)
	r.fail("O", blk.Write, 4*63)
	r.wantInfo("m", "Merge failed")
	r.open()
	r.suspend("m")
	r.ok(r.load("m", 1024, "snapshot O C P 2"))
	r.ok(r.resume("m"))
	for i := range uint64(80) {
		r.wantEnd(r.write(r.dev("m"), 700+4*i, 1, 3), blk.OK)
	}
	check := func(d blk.Device) {
		for i := range uint64(64) {
			r.wantData(d, 4*i, 1, 2)
		}
		for i := range uint64(80) {
			r.wantData(d, 700+4*i, 1, 3)
			r.wantData(d, 701+4*i, 3, 1)
		}
	}
	check(r.dev("m"))
	r.remove("m")
	check(r.device("s", 1024, "snapshot O C P 2"))
}

// A merge fails to clear the last run of a full area, and the snapshot that follows
// fails to record it again. It continues all the same, and the next record writes the
// full area, too.
func TestFullAreaInDoubtIsRecordedWithTheNext(t *testing.T) {
	r := newGated(t, stepped(), 1024, 4096)
	s := r.device("s", 1024, "snapshot O C P 2")
	for i := range uint64(64) {
		r.wantEnd(r.write(s, 4*i, 1, 2), blk.OK)
	}
	r.gates["O"].Shut()
	r.toMerge(1024, "O C P 2")
	r.release("O", blk.Write, 4*63)
	r.gates["C"].Shut()
	r.release("O", blk.Flush, 0)
	r.fail("C", blk.Write, 3)
	r.wantInfo("m", "Merge failed")
	r.suspend("m")
	r.ok(r.load("m", 1024, "snapshot O C P 2"))
	sim(r).Go("resume", func() { r.ok(r.resume("m")) })
	r.run()
	r.fail("C", blk.Write, 3)
	r.open()
	r.wantEnd(r.write(r.dev("m"), 4*63, 1, 3), blk.IOErr) // nobody knows where it would be
	for i := range uint64(70) {
		r.wantEnd(r.write(r.dev("m"), 700+4*i, 1, 3), blk.OK)
	}
	r.wantEnd(r.write(r.dev("m"), 4*63, 1, 3), blk.OK)
	r.remove("m")
	s = r.device("s", 1024, "snapshot O C P 2")
	for i := range uint64(63) {
		r.wantData(s, 4*i, 1, 2)
	}
	r.wantData(s, 4*63, 1, 3)
	for i := range uint64(70) {
		r.wantData(s, 700+4*i, 1, 3)
	}
}

func TestParametersForSpace(t *testing.T) {
	got := ""
	for _, p := range params() {
		got += fmt.Sprintf("%s %d\n", p.Name, p.Get())
	}
	want := "dm_snapshot.snapshot_cow_threshold 2048\ndm_snapshot.snapshot_copy_throttle 100\n" +
		"dm_snapshot.no_space_timeout 60\ndm_snapshot.error_if_no_space 0\n"
	if got != want {
		t.Fatal(got)
	}
}
