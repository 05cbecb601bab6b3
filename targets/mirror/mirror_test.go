package mirror_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	"udm/targets/mirror"
)

var types = []*dm.Type{mirror.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	for _, table := range []string{
		"0 4096 mirror disk 2 a 8 2 b 3 c 0",
		"0 4090 mirror disk 2 a 64 3 b 0 c 9 d 0 1 handle_errors",
	} {
		targettest.Conforms(t, blktest.Suite{}, types, table)
	}
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 mirror => EINVAL Insufficient mirror log arguments
		0 64 mirror core => EINVAL Insufficient mirror log arguments
		0 64 mirror core x => EINVAL Invalid mirror log argument count
		0 64 mirror core 2 8 => EINVAL Insufficient mirror log arguments
		0 64 mirror core 4294967295 8 => EINVAL Insufficient mirror log arguments
		0 64 mirror core 0 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 3 8 sync x 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 1 1 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 1 12 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 1 8x 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 1 128 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 2 8 block_on_error 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror userspace 1 8 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror disk 1 8 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror disk 2 /none 8 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 137438953472 mirror disk 2 c 8 2 a 0 b 0 => EINVAL Error creating mirror dirty log
		0 64 mirror core 1 8 => EINVAL Invalid number of mirrors
		0 64 mirror core 1 8 1 a 0 => EINVAL Invalid number of mirrors
		0 64 mirror core 1 8 10 a 0 b 0 => EINVAL Invalid number of mirrors
		0 64 mirror core 1 8 2 a 0 b => EINVAL Too few mirror arguments
		0 64 mirror core 1 8 2 a 0 b x => EINVAL Invalid offset
		0 64 mirror core 1 8 2 /none 0 b x => ENODEV Device lookup failure
		0 64 mirror core 1 8 2 a 0 /none 0 => ENODEV Device lookup failure
		0 64 mirror core 1 8 2 a 0 b 0 x => EINVAL Invalid number of features
		0 64 mirror core 1 8 2 a 0 b 0 1 => EINVAL Not enough arguments to support feature count
		0 64 mirror core 1 8 2 a 0 b 0 1 x => EINVAL Unrecognised feature requested
		0 64 mirror core 1 8 2 a 0 b 0 1 keep_log => EINVAL keep_log feature requires the handle_errors feature
		0 64 mirror core 1 8 2 a 0 b 0 1 handle_errors 7 => EINVAL Too many mirror arguments
		0 64 mirror core 1 8 2 a 16380 b 0 => EINVAL 7:0 too small for target: start=16380, len=64, dev_size=16384
		0 64 mirror core 1 8 2 a 0 b 16380 => EINVAL 7:1 too small for target: start=16380, len=64, dev_size=16384
	`)
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 60 mirror core 2 8 nosync 2 a 8 b 16")
	r.Lines(d, dm.Info, "0 60 mirror 2 7:0 7:1 8/8 1 AA 1 core")
	r.Lines(d, dm.TableText, "0 60 mirror core 2 8 nosync 2 7:0 8 7:1 16")
	r.Swap(d, "0 64 mirror disk 3 c 16 sync 3 a 0 b 0 d 1 2 keep_log handle_errors")
	r.Lines(d, dm.TableText, "0 64 mirror disk 3 7:2 16 sync 3 7:0 0 7:1 0 7:3 1 2 handle_errors keep_log")
	r.Sim.Run()
	r.Lines(d, dm.Info, "0 64 mirror 3 7:0 7:1 7:3 4/4 1 AAA 3 disk 7:2 A")
	if !d.Limits().StableWrites {
		t.Error("data that a client changes while they are written would differ on the legs")
	}
	r.Swap(d, "0 64 mirror core 1 64 2 a 0 b 0 0")
	r.Lines(d, dm.TableText, "0 64 mirror core 1 64 2 7:0 0 7:1 0")
}

// read is what a read at a sector finds.
func read(r *targettest.Rig, d *dm.Device, sector uint64) blk.Status {
	return r.Submit(d, blk.Read, 0, sector, 1, 0).Status()
}

func status(t *testing.T, d *dm.Device) *mirror.Status {
	t.Helper()
	s, err := mirror.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantHealth checks the letters of the legs, the regions in sync and the events.
func wantHealth(t *testing.T, d *dm.Device, health string, synced uint64, events uint32) {
	t.Helper()
	s, got := status(t, d), ""
	for _, l := range s.Legs {
		got += string(l.Health)
	}
	if got != health || s.Synced != synced || d.Status().EventNr != events {
		t.Errorf("health %s, %d in sync, %d events; want %s, %d, %d", got, s.Synced, d.Status().EventNr, health, synced, events)
	}
}

// A log on a disk is the one of Linux, byte for byte.
func TestLogOnDisk(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 560 mirror disk 2 c 8 2 a 0 b 0")
	r.Sim.Run()
	p := make([]byte, 2048)
	want := func(what string, clean ...byte) {
		t.Helper()
		r.Must(blk.ReadSectors(r.Sim, r.Disk("c"), p, 0))
		all := make([]byte, 16)
		copy(all, clean)
		if !bytes.Equal(p[1024:1040], all) {
			t.Errorf("%s: the clean bits are %x, want %x", what, p[1024:1040], all)
		}
	}
	want("resynchronized", 255, 255, 255, 255, 255, 255, 255, 255, 63)
	if string(p[:4]) != "rRiM" || binary.LittleEndian.Uint32(p[4:]) != 2 || binary.LittleEndian.Uint64(p[8:]) != 70 {
		t.Errorf("the header is %x", p[:16])
	}
	r.Gate("b").Shut()
	x := r.Submit(d, blk.Write, 0, 81, 2, 7)
	want("while region 10 is written", 255, 251, 255, 255, 255, 255, 255, 255, 63)
	r.Gate("b").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	want("after the write", 255, 255, 255, 255, 255, 255, 255, 255, 63)
}

// The region is dirty on the disk, durably, before a leg is written, and clean after all
// legs were flushed.
func TestOrderOfAWrite(t *testing.T) {
	r := targettest.New(t, types, func(l *blk.Limits) { l.VolatileCache = true })
	d := r.Device("x", "0 64 mirror disk 2 c 8 2 a 0 b 8")
	r.Sim.Run()
	for _, n := range []string{"a", "b", "c"} {
		r.Gate(n).Forget()
	}
	log := r.Gate("c")
	log.Shut()
	x := r.Submit(d, blk.Write, blk.FUA, 9, 2, 7)
	y := r.Submit(d, blk.Write, 0, 20, 2, 7)
	r.Trace("a", "")
	log.ReleaseAll()
	r.Sim.Run()
	r.Trace("a", "")
	log.ReleaseAll()
	r.Sim.Run()
	if trace := r.Gate("a").Trace(); !strings.HasPrefix(trace, "write 9+2 fua\n") {
		t.Errorf("leg a: %s", trace)
	}
	log.Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Done(y, blk.OK)
	if trace := r.Gate("b").Trace(); !strings.HasPrefix(trace, "write 17+2 fua\n") || !strings.HasSuffix(trace, "flush 0+0\n") {
		t.Errorf("leg b: %s", trace)
	}
	r.WantDisk("a", 9, 2, 9, 7)
	r.WantDisk("b", 17, 2, 9, 7)
}

// Writes to a region that is being copied wait; others go on: to all legs if it was copied
// already, else to the primary.
func TestWritesDuringRecovery(t *testing.T) {
	r := targettest.New(t, types)
	r.Must(blk.WriteSectors(r.Sim, r.Disk("a"), blktest.Pattern(0, 32, 5), 0, 0))
	gate := r.Gate("b")
	gate.Shut()
	d := r.Device("x", "0 32 mirror core 1 8 2 a 0 b 0")
	r.Sim.Run()
	gate.ReleaseAll() // region 0
	r.Sim.Run()
	r.Lines(d, dm.Info, "0 32 mirror 2 7:0 7:1 1/4 1 AA 1 core")
	here := r.Submit(d, blk.Write, 0, 8, 1, 6)
	later := r.Submit(d, blk.Write, 0, 16, 1, 6)
	before := r.Submit(d, blk.Write, 0, 0, 1, 6)
	r.Held(here)
	r.Done(later, blk.OK)
	r.Held(before) // leg b holds it
	if read(r, d, 9) != blk.OK {
		t.Error("a read waits for the recovery")
	}
	gate.Open()
	r.Sim.Run()
	r.Done(here, blk.OK)
	r.Done(before, blk.OK)
	wantHealth(t, d, "AA", 4, 1)
	for _, leg := range []string{"a", "b"} {
		r.WantDisk(leg, 0, 1, 0, 6)
		r.WantDisk(leg, 1, 7, 1, 5)
		r.WantDisk(leg, 8, 1, 8, 6)
		r.WantDisk(leg, 16, 1, 16, 6)
		r.WantDisk(leg, 17, 15, 17, 5)
	}
}

// failing makes a disk fail its next requests until it is released.
func failing(r *targettest.Rig, disk string, submit func()) {
	g := r.Gate(disk)
	g.Shut()
	submit()
	for range 3 {
		for _, q := range g.Held() {
			g.Fail(q.Index, blk.IOErr)
		}
		r.Sim.Run()
	}
	g.Open()
	r.Sim.Run()
}

func TestReadsGoOnByAnotherLeg(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror core 2 8 nosync 3 a 0 b 0 c 0 1 handle_errors")
	r.Write(d, 0, 32, 3)
	r.Gate("a").Forget()
	var x *targettest.IO
	failing(r, "a", func() { x = r.Submit(d, blk.Read, 0, 3, 4, 9) })
	r.Done(x, blk.OK)
	if err := blktest.Check(x.Data, 3, 3); err != nil {
		t.Error(err)
	}
	wantHealth(t, d, "RAA", 4, 1)
	r.Gate("b").Forget()
	r.Want(d, 5, 1, 5, 3)
	r.Trace("b", "read 5+1\n") // it is the primary now
	failing(r, "b", func() { x = r.Submit(d, blk.Read, 0, 3, 4, 9) })
	r.Done(x, blk.OK)
	failing(r, "c", func() { x = r.Submit(d, blk.Read, 0, 3, 4, 9) })
	r.Done(x, blk.IOErr)
	wantHealth(t, d, "RRR", 4, 3)
}

// A read-ahead that fails is not tried again, and says nothing about the leg.
func TestReadaheadFails(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror core 2 8 nosync 2 a 0 b 0 1 handle_errors")
	var x *targettest.IO
	failing(r, "a", func() { x = r.Submit(d, blk.Read, blk.Readahead, 3, 4, 9) })
	r.Done(x, blk.IOErr)
	wantHealth(t, d, "AA", 4, 0)
}

// While the mirror is out of sync, nothing takes the place of the primary.
func TestPrimaryFailsOutOfSync(t *testing.T) {
	r := targettest.New(t, types)
	r.Gate("b").Shut()
	d := r.Device("x", "0 32 mirror core 1 8 2 a 0 b 0 1 handle_errors")
	var x *targettest.IO
	failing(r, "a", func() { x = r.Submit(d, blk.Read, 0, 3, 4, 9) })
	r.Done(x, blk.IOErr)
	r.Gate("b").Open()
	r.Sim.Run()
	if read(r, d, 30) == blk.OK && status(t, d).Legs[0].Health == 'A' {
		t.Error("the failure was forgotten")
	}
}

// With handle_errors a write that failed on a leg is held until a suspend, and fails then
// or is repeated.
func TestHeldWrites(t *testing.T) {
	for _, noflush := range []bool{false, true} {
		r := targettest.New(t, types)
		const table = "0 32 mirror disk 2 c 8 2 a 0 b 0 1 handle_errors"
		d := r.Device("x", table)
		r.Sim.Run()
		var x *targettest.IO
		failing(r, "b", func() { x = r.Submit(d, blk.Write, 0, 3, 4, 9) })
		r.Held(x)
		wantHealth(t, d, "AD", 3, 2)
		specs, err := dm.ParseTable("0 32 linear a 0")
		r.Must(err)
		r.Must(d.Load(specs, dm.Mode{Write: true}))
		r.Suspend(d, noflush)
		r.Sim.Run()
		if noflush {
			r.Held(x)
		} else {
			r.Done(x, blk.IOErr)
		}
		r.Resume(d)
		r.Sim.Run()
		if noflush {
			r.Done(x, blk.OK)
			r.WantDisk("a", 3, 4, 3, 9)
		}
		r.Swap(d, table) // the region is dirty in the log
		r.Sim.Run()
		r.Lines(d, dm.Info, "0 32 mirror 2 7:0 7:1 4/4 1 AA 3 disk 7:2 A")
		same(t, r, 32)
	}
}

// same checks that legs a and b have the same first sectors.
func same(t *testing.T, r *targettest.Rig, sectors uint64) {
	t.Helper()
	a, b := make([]byte, sectors*blk.SectorSize), make([]byte, sectors*blk.SectorSize)
	r.Must(blk.ReadSectors(r.Sim, r.Disk("a"), a, 0))
	r.Must(blk.ReadSectors(r.Sim, r.Disk("b"), b, 0))
	if !bytes.Equal(a, b) {
		t.Error("the legs differ")
	}
}

// With keep_log, and without handle_errors, a write succeeds if one leg has it.
func TestWritesThatSucceedOnOneLeg(t *testing.T) {
	for _, c := range []struct {
		features string
		events   uint32
	}{{"", 1}, {" 2 handle_errors keep_log", 2}} {
		r := targettest.New(t, types)
		table := "0 32 mirror disk 2 c 8 2 a 0 b 0" + c.features
		d := r.Device("x", table)
		r.Sim.Run()
		var x *targettest.IO
		failing(r, "b", func() { x = r.Submit(d, blk.Write, 0, 3, 4, 9) })
		r.Done(x, blk.OK)
		wantHealth(t, d, "AD", 3, c.events)
		r.Want(d, 3, 4, 3, 9)
		r.Suspend(d, false)
		r.Resume(d) // which recovers the region
		r.Sim.Run()
		wantHealth(t, d, "AA", 4, c.events+1)
		same(t, r, 32)
	}
}

// If the primary fails a write while the mirror is in sync, another leg takes its place.
func TestPrimaryFailsAWrite(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror disk 2 c 8 2 a 0 b 0 2 handle_errors keep_log")
	r.Sim.Run()
	var x *targettest.IO
	failing(r, "a", func() { x = r.Submit(d, blk.Write, 0, 3, 4, 9) })
	r.Done(x, blk.OK)
	wantHealth(t, d, "DA", 3, 2)
	r.Want(d, 3, 4, 3, 9)
	r.Write(d, 4, 2, 10) // to leg b alone
	r.Want(d, 4, 2, 4, 10)
	r.WantDisk("b", 4, 2, 4, 10)
	r.Suspend(d, false)
	r.Resume(d)
	r.Sim.Run()
	same(t, r, 32) // it was copied from leg b
	r.WantDisk("a", 4, 2, 4, 10)
}

// When the log fails, writes are held, or fail with keep_log, or go on without
// handle_errors.
func TestLogFails(t *testing.T) {
	for features, want := range map[string]blk.Status{"": blk.OK, " 1 handle_errors": blk.IOErr, " 2 handle_errors keep_log": blk.IOErr} {
		r := targettest.New(t, types)
		d := r.Device("x", "0 32 mirror disk 2 c 8 2 a 0 b 0"+features)
		r.Sim.Run()
		var x *targettest.IO
		failing(r, "c", func() { x = r.Submit(d, blk.Write, 0, 3, 4, 9) })
		if features == " 1 handle_errors" {
			r.Held(x)
			r.Suspend(d, false)
			r.Resume(d)
		}
		r.Done(x, want)
		if s := status(t, d); s.LogHealth != 'D' || s.Legs[0].Health != 'A' {
			t.Errorf("%q: %v", features, s)
		}
		if want == blk.OK {
			r.WantDisk("b", 3, 4, 3, 9)
		}
	}
}

// If the log cannot be read, nothing is taken for being in sync.
func TestLogCannotBeRead(t *testing.T) {
	r := targettest.New(t, types)
	const table = "0 32 mirror disk 2 c 8 2 a 0 b 0"
	d := r.Device("x", table)
	r.Sim.Run()
	r.Gate("b").Shut() // no recovery
	done := false
	r.Gate("c").Shut()
	r.Sim.Go("swap", func() { r.Swap(d, table); done = true })
	r.Sim.Run()
	for _, q := range r.Gate("c").Held() {
		r.Gate("c").Fail(q.Index, blk.IOErr)
	}
	r.Gate("c").Open()
	if r.Sim.Run(); !done {
		t.Fatal("the table is not live")
	}
	if s := status(t, d); s.Synced != 0 || s.LogHealth != 'D' {
		t.Error(s)
	}
}

// A leg without space has not failed. The write fails, and its region is recovered when
// there is space.
func TestLegWithoutSpace(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror disk 2 c 8 2 a 0 b 0 1 handle_errors")
	r.Sim.Run()
	g := r.Gate("b")
	g.Shut()
	x := r.Submit(d, blk.Write, 0, 3, 4, 9)
	g.Fail(g.Held()[0].Index, blk.NoSpace)
	r.Sim.Run()
	r.Done(x, blk.NoSpace)
	wantHealth(t, d, "AA", 3, 1)
	r.Sim.Advance(1e9)
	g.Fail(g.Held()[0].Index, blk.NoSpace) // of the recovery
	r.Sim.Run()
	wantHealth(t, d, "AA", 3, 1)
	g.Open()
	r.Sim.Advance(1e9)
	wantHealth(t, d, "AA", 4, 2)
	same(t, r, 32)
}

// A suspend waits for the region that is being copied, and no other is begun.
func TestSuspendStopsRecovery(t *testing.T) {
	r := targettest.New(t, types)
	g := r.Gate("b")
	g.Shut()
	d := r.Device("x", "0 32 mirror core 1 8 2 a 0 b 0")
	r.Sim.Run()
	suspended := false
	r.Sim.Go("suspend", func() { r.Suspend(d, false); suspended = true })
	if r.Sim.Run(); suspended {
		t.Fatal("suspended while a region is copied")
	}
	g.ReleaseAll()
	r.Sim.Run()
	if held := g.Held(); !suspended || len(held) > 0 {
		t.Fatalf("suspended: %v, held: %v", suspended, held)
	}
	wantHealth(t, d, "AA", 1, 0)
	g.Open()
	r.Resume(d)
	r.Sim.Run()
	wantHealth(t, d, "AA", 4, 1)
}

// A flush that fails on a leg leaves the mirror out of sync until another table is loaded.
func TestFlushFails(t *testing.T) {
	r := targettest.New(t, types, func(l *blk.Limits) { l.VolatileCache = true })
	const table = "0 32 mirror disk 2 c 8 2 a 0 b 0"
	d := r.Device("x", table)
	r.Sim.Run()
	var x *targettest.IO
	failing(r, "b", func() { x = r.Submit(d, blk.Flush, 0, 0, 0, 0) })
	r.Done(x, blk.OK) // leg a is flushed
	wantHealth(t, d, "AD", 4, 1)
	r.Write(d, 8, 1, 4)
	wantHealth(t, d, "AD", 3, 1)
	r.Swap(d, table)
	r.Sim.Run()
	wantHealth(t, d, "AA", 4, 2)
	same(t, r, 32)
}

// resumeFailing suspends and resumes d, and lets the first I/Os of the log fail meanwhile.
// It holds those that follow.
func resumeFailing(r *targettest.Rig, d *dm.Device, failures int) {
	g := r.Gate("c")
	r.Suspend(d, false)
	g.Shut()
	r.Sim.Go("resume", func() { r.Resume(d) })
	r.Sim.Run()
	for range failures {
		failFirst(r, "c")
	}
}

func failFirst(r *targettest.Rig, disk string) {
	g := r.Gate(disk)
	g.Fail(g.Held()[0].Index, blk.IOErr)
	r.Sim.Run()
}

// A resume that cannot read the log puts a mirror that was in sync out of sync: the primary
// alone has what is written from then on, and stays the source if it fails.
func TestPrimaryFailsAfterLogCannotBeRead(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror disk 2 c 8 2 a 0 b 0 1 handle_errors")
	r.Sim.Run()
	a := r.Gate("a")
	a.Shut()
	resumeFailing(r, d, 1)
	r.Gate("c").Open()
	r.Sim.Run()
	x := r.Submit(d, blk.Write, blk.FUA, 17, 2, 7)
	a.Release(a.Held()[1].Index)
	r.Sim.Run()
	r.Done(x, blk.OK)
	failFirst(r, "a") // the read of the recovery
	a.Open()
	r.Sim.Run()
	wantHealth(t, d, "SA", 3, 3)
	r.Want(d, 17, 2, 17, 7)
	r.WantDisk("a", 17, 2, 17, 7)
	r.WantDisk("b", 17, 2, 17, 7)
}

// A write to the primary alone is not sent as long as the log on the disk may call its region
// clean: after a restart the legs would count as alike.
func TestLogCannotSayWhatIsOutOfSync(t *testing.T) {
	for features, want := range map[string]blk.Status{" 1 handle_errors": blk.OK, " 2 handle_errors keep_log": blk.IOErr} {
		r := targettest.New(t, types)
		table := "0 32 mirror disk 2 c 8 2 a 0 b 0" + features
		d := r.Device("x", table)
		r.Sim.Run()
		a := r.Gate("a")
		a.Shut() // the recovery waits
		resumeFailing(r, d, 3)
		x := r.Submit(d, blk.Write, 0, 17, 2, 7)
		for len(r.Gate("c").Held()) > 0 {
			failFirst(r, "c")
		}
		if held := a.Held(); len(held) != 1 {
			t.Fatalf("leg a has %v", held)
		}
		r.Gate("c").Open()
		a.Open()
		r.Sim.Run()
		if want == blk.OK {
			r.Held(x)
			specs, err := dm.ParseTable(table)
			r.Must(err)
			r.Must(d.Load(specs, dm.Mode{Write: true}))
			r.Suspend(d, true)
			r.Resume(d)
			r.Sim.Run()
			r.WantDisk("b", 17, 2, 17, 7)
		}
		r.Done(x, want)
		same(t, r, 32)
	}
}

// A discard that fails on a leg ends at once, unless a restart would replace what reads find.
func TestDiscardFailsOnALeg(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror core 2 8 nosync 2 a 0 b 0 1 handle_errors")
	r.Write(d, 0, 32, 3)
	var x *targettest.IO
	failing(r, "b", func() { x = r.Submit(d, blk.Discard, 0, 3, 4, 0) })
	r.Done(x, blk.NotSupported)
	r.Sim.Advance(2e9)
	wantHealth(t, d, "AA", 4, 1)
	failing(r, "a", func() { r.Submit(d, blk.Read, 0, 20, 1, 0) })
	failing(r, "b", func() { x = r.Submit(d, blk.Discard, 0, 3, 4, 0) })
	r.Held(x)
	r.Suspend(d, false)
	r.Done(x, blk.IOErr)
	r.Resume(d)
	r.Sim.Run()
	wantHealth(t, d, "AA", 4, 3)
	failing(r, "b", func() { x = r.Submit(d, blk.Discard, 0, 3, 4, 0) })
	r.Done(x, blk.NotSupported) // leg a is the primary again
}

// A region that gets out of sync while the log is told that the last one is in sync keeps the
// mirror out of sync, and the primary where it is.
func TestDiscardFailsWhileTheLastRegionComesIntoSync(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 32 mirror disk 3 c 8 nosync 2 a 0 b 0 1 handle_errors")
	r.Sim.Run()
	r.Write(d, 0, 32, 3)
	failing(r, "b", func() { r.Submit(d, blk.Discard, 0, 25, 4, 0) }) // region 3
	b := r.Gate("b")
	b.Shut()
	x := r.Submit(d, blk.Discard, 0, 1, 4, 0) // region 0
	r.Sim.Advance(2e9)
	q, ok := b.Find(blk.Write, 24)
	if !ok {
		t.Fatal("region 3 is not recovered")
	}
	b.Release(q.Index)
	r.Sim.Run()
	if _, ok := b.Find(blk.Flush, 0); !ok {
		t.Fatal("the log is not about to be told")
	}
	q, _ = b.Find(blk.Discard, 1)
	b.Fail(q.Index, blk.IOErr)
	r.Sim.Run()
	r.Done(x, blk.NotSupported)
	b.Open()
	r.Sim.Run()
	failing(r, "a", func() { r.Submit(d, blk.Read, 0, 20, 1, 0) })
	r.Sim.Advance(2e9)
	for _, leg := range []string{"a", "b"} {
		p := make([]byte, 4*blk.SectorSize)
		r.Must(blk.ReadSectors(r.Sim, r.Disk(leg), p, 1))
		if !bytes.Equal(p, make([]byte, len(p))) {
			t.Errorf("leg %s has what was discarded", leg)
		}
	}
	same(t, r, 32)
}

// A write that fails on a leg puts its region out of sync also after the log has failed.
func TestLegFailsAfterTheLog(t *testing.T) {
	r := targettest.New(t, types)
	const table = "0 32 mirror disk 2 c 8 2 a 0 b 0"
	d := r.Device("x", table)
	r.Sim.Run()
	failing(r, "c", func() { r.Submit(d, blk.Write, 0, 3, 4, 9) })
	b := r.Gate("b")
	b.Shut()
	x := r.Submit(d, blk.Write, 0, 9, 4, 9)
	b.ReleaseAll() // a flush, for region 0
	r.Sim.Run()
	q, _ := b.Find(blk.Write, 9)
	b.Fail(q.Index, blk.IOErr)
	b.Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	wantHealth(t, d, "AD", 3, 2)
	r.Swap(d, table)
	r.Sim.Run()
	wantHealth(t, d, "AA", 4, 3)
	same(t, r, 32)
}
