package thin

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
)

// fullLife is a scenario of a pool whose disks have no space at some write.
type fullLife struct {
	*failing
	sim   *env.Sim
	space env.Wait
	roomy bool
	done  bool
}

// TestSpaceRunsOutAtEachWrite fills the disks below a pool at each single write of a
// scenario with every metadata operation, and keeps them full until they get space. Only
// messages fail, and they have changed nothing then; reads go on; a power cut meanwhile
// loses nothing that was flushed; everything goes on by itself. With error_if_no_space,
// writes and flushes may fail as well.
func TestSpaceRunsOutAtEachWrite(t *testing.T) {
	every := 1
	switch {
	case invariants.Enabled:
		every = 13
	case testing.Short():
		every = 7
	}
	for _, features := range [][]string{nil, {"error_if_no_space"}, {"skip_block_zeroing", "no_discard_passdown"}} {
		n := blktest.FullEach(t, every, func(t *testing.T, f *blktest.Failer) { fullScenario(t, f, features) })
		t.Logf("%v: %d writes", features, n)
	}
}

func fullScenario(t *testing.T, f *blktest.Failer, features []string) {
	s := newFullLife(t, f, features)
	s.sim.Go("life", func() { s.life(); s.done = true })
	for range 3 {
		s.sim.Advance(9 * time.Second)
		s.readAll((*blktest.Model).CheckAny) // beside a write that waits
	}
	if f.Failed() {
		s.again(t, s.meta.CrashClone(1), s.data.CrashClone(2)).verify(true, false)
	}
	s.giveSpace()
	s.sim.Advance(5 * time.Second)
	if !s.done {
		t.Fatalf("it does not go on when there is space: %v", s.status())
	}
	s.readAll((*blktest.Model).Check)
	s.settle()
	s.stop()
	after := s.again(t, s.meta, s.data)
	after.verify(false, false)
}

func newFullLife(t *testing.T, f *blktest.Failer, features []string) *fullLife {
	sim := env.NewStepped()
	w := newBusyPool(t, sim)
	w.blocks, w.volBlocks, w.features = 24, 6, features
	w.wrap = func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }
	s := &fullLife{failing: &failing{busyPool: w, f: f}, sim: sim, space: sim.NewWait()}
	s.judge, s.retry = s.wantGood, s.wait
	if err := w.start(); err != nil { // the pool could not be made: it is tried again
		if dm.ErrnoOf(err) != syscall.ENOSPC {
			t.Fatal(err)
		}
		w.must(w.control.Close())
		s.giveSpace()
		w.must(w.start())
	}
	return s
}

func (s *fullLife) giveSpace() {
	s.f.MakeSpace()
	s.roomy = true
	s.space.Wake()
}

// wait waits for space if a command failed for lack of it.
func (s *fullLife) wait(err error) bool {
	if dm.ErrnoOf(err) != syscall.ENOSPC {
		return false
	}
	s.space.Until(func() bool { return s.roomy })
	return true
}

// wantGood checks the outcome of a step and the pool.
func (s *fullLife) wantGood(what string, err error) bool {
	s.Helper()
	s.idleDiscards = s.f.Failed()
	mayFail := err == blk.NoSpace && s.f.Failed() && slices.Contains(s.features, "error_if_no_space")
	if err != nil && !mayFail {
		s.Fatalf("%s: %v", what, err)
	}
	s.inGoodOrder(what)
	return err == nil
}

func (s *fullLife) inGoodOrder(when string) {
	s.Helper()
	if st := s.status(); len(st) < 8 || st[4] != "rw" && st[4] != "out_of_data_space" || st[7] != "-" {
		s.Fatalf("after %s: status %v", when, st)
	}
}

// readAll reads all volumes: no read waits for space.
func (s *fullLife) readAll(check func(m *blktest.Model, p []byte, sector uint64) error) {
	s.Helper()
	s.inGoodOrder("a while")
	read := false
	s.sim.Go("reads", func() {
		for _, v := range s.vols {
			p := make([]byte, s.volBlocks*bs*blk.SectorSize)
			s.must(blk.ReadSectors(s.e, v.dev, p, 0))
			s.must(check(v.model, p, 0))
		}
		read = true
	})
	s.sim.Run()
	if !read {
		s.Fatal("a read waits for space")
	}
}

// settle checks that the pool is as good as new.
func (s *fullLife) settle() {
	s.Helper()
	s.sim.Go("write", func() { // of a new block: where writes fail, one has to see that there is space
		v, err := s.create(9, false, nil)
		s.must(err)
		if st := s.write(v, 0, bs, 0); st != blk.OK {
			s.Errorf("write: %v", st)
		}
	})
	s.sim.Advance(3 * time.Second)
	if st := s.status(); st[4] != "rw" {
		s.Fatalf("status %v", st)
	}
	s.sim.Go("flushes", func() {
		for _, v := range s.vols {
			if st := s.flush(v); st != blk.OK {
				s.Errorf("flush: %v", st)
			}
		}
	})
	s.sim.Run()
}

// fullDisk is a disk that has no space while full is set.
type fullDisk struct {
	blk.Device
	full bool
	ask  func() // called before it tells of holes; nil: nothing
}

func (d *fullDisk) Submit(b *blk.Bio) {
	if d.full && (b.Op == blk.Write || b.Op == blk.WriteZeroes) {
		b.Complete(blk.NoSpace)
		return
	}
	d.Device.Submit(b)
}

func (d *fullDisk) Close() error { return nil }

func (d *fullDisk) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	if d.ask != nil {
		d.ask()
	}
	return blk.ExtentsOf(d.Device, sector, sectors), nil
}

// fullRig is a pool of 64 blocks with volumes 0 and 1, and its disks.
type fullRig struct {
	*busyPool
	sim   *env.Sim
	disks map[string]*fullDisk
	vol   [2]*vol
}

func newFullRig(t *testing.T, features ...string) *fullRig {
	r := &fullRig{sim: env.NewStepped(), disks: map[string]*fullDisk{}}
	r.busyPool = newBusyPool(t, r.sim)
	r.features = features
	r.wrap = func(name string, d blk.Device) blk.Device {
		if r.disks[name] == nil {
			r.disks[name] = &fullDisk{Device: d}
		}
		return r.disks[name]
	}
	r.must(r.start())
	for id := range r.vol {
		var err error
		r.vol[id], err = r.create(id, false, nil)
		r.must(err)
	}
	t.Cleanup(func() {
		r.fill("m", false)
		r.fill("d", false)
		r.sim.Advance(3 * time.Second)
		r.stop()
		r.checkMetadata(false, false)
	})
	return r
}

func (r *fullRig) fill(disk string, full bool) {
	if d := r.disks[disk]; d != nil {
		d.full = full
	}
}

// submit starts an I/O to a volume.
func (r *fullRig) submit(v *vol, op blk.Op, flags blk.Flags, sector, sectors, seed uint64) *ioT {
	x := &ioT{}
	x.Op, x.Flags, x.Sector, x.Sectors = op, flags, sector, sectors
	if op.HasData() {
		x.Data = blktest.Pattern(sector, sectors, seed)
		x.SetData(x.Data)
	}
	x.End = func(*blk.Bio) { x.Ends++ }
	v.dev.Submit(&x.Bio)
	r.sim.Run()
	return x
}

func (r *fullRig) wantEnd(x *ioT, st blk.Status) {
	r.Helper()
	if x.Ends != 1 || x.Status() != st {
		r.Fatalf("%v ended %d times, with %v; want %v", &x.Bio, x.Ends, x.Status(), st)
	}
}

func (r *fullRig) wantHeld(xs ...*ioT) {
	r.Helper()
	for _, x := range xs {
		if x.Ends != 0 {
			r.Fatalf("%v ended with %v", &x.Bio, x.Status())
		}
	}
}

func (r *fullRig) wantMode(mode, noSpace string) {
	r.Helper()
	if f := r.status(); f[4] != mode || f[6] != noSpace || f[7] != "-" {
		r.Fatalf("status %v, want %s, %s", f, mode, noSpace)
	}
}

func (r *fullRig) wantData(v *vol, sector, sectors, seed uint64) {
	r.Helper()
	x := r.submit(v, blk.Read, 0, sector, sectors, blktest.MaxSeed)
	r.wantEnd(x, blk.OK)
	r.must(blktest.Check(x.Data, sector, seed))
}

// TestBlocksTakeTheirSpaceBeforeTheyAreMapped: a block is zeroed without a hole.
func TestBlocksTakeTheirSpaceBeforeTheyAreMapped(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Gate("d").Forget()
	r.Write(d, 8, 8, 1)
	r.Trace("d", "write-zeroes 0+128 nounmap\nwrite 8+8\n")
}

// TestHolesTakeTheirSpaceBeforeTheyAreMapped: without zeroing, the holes of a block are
// filled, and what the data device held is still shown.
func TestHolesTakeTheirSpaceBeforeTheyAreMapped(t *testing.T) {
	r := newRig(t)
	r.Disk("d").Resize(64 * bs)
	r.pool = r.Device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0 1 skip_block_zeroing", 64*bs, 2*bs))
	d := r.thin(0, 64)
	for _, at := range []uint64{bs + 8, 4 * bs, 5 * bs} {
		r.Must(blk.WriteSectors(r.Sim, r.Disk("d"), blktest.Pattern(at, 8, 5), at, 0))
	}
	r.Gate("d").Forget()
	r.Write(d, 8, 8, 1) // half of the block is a hole
	r.Trace("d", "write-zeroes 0+128 nounmap\nwrite 8+8\n")
	r.Want(d, bs, 8, bs, 0)
	r.Want(d, bs+8, 8, bs+8, 5)
	r.Gate("d").Forget()
	r.Write(d, 2*bs, 2*bs, 2) // a hole, which it fills
	r.Trace("d", "write 256+256\n")
	r.Gate("d").Forget()
	r.Write(d, 4*bs+8, 8, 3) // no hole
	r.Trace("d", "write 520+8\n")
	r.Want(d, 4*bs, 8, 4*bs, 5)
}

// TestOwnerDoesNotWaitForHoles: while the data device does not answer which holes new blocks
// have, the owner does everything else. Neighbours share a question, and blocks that are
// overwritten need none.
func TestOwnerDoesNotWaitForHoles(t *testing.T) {
	r := newFullRig(t, "skip_block_zeroing")
	v, w := r.vol[0], r.vol[1]
	asked, answers, wait := 0, false, r.sim.NewWait()
	r.disks["d"].ask = func() {
		asked++
		wait.Until(func() bool { return answers })
	}
	held := []*ioT{r.submit(v, blk.Write, 0, 8, 8, 1), r.submit(v, blk.Write, 0, bs+8, 8, 1), r.submit(v, blk.Write, 0, 2*bs+8, 8, 1)}
	r.wantHeld(held...)
	r.wantEnd(r.submit(w, blk.Write, 0, 0, 2*bs, 1), blk.OK)
	r.wantEnd(r.submit(w, blk.Flush, 0, 0, 0, 0), blk.OK)
	r.wantEnd(r.submit(w, blk.Discard, 0, bs, bs, 0), blk.OK)
	r.wantData(w, 0, bs, 1)
	r.wantData(v, 3*bs, bs, 0)
	r.wantHeld(held...)
	answers = true
	wait.Wake()
	r.sim.Run()
	for _, x := range held {
		r.wantEnd(x, blk.OK)
	}
	r.wantData(v, 0, 8, 0)
	r.wantData(v, 8, 8, 1)
	r.wantData(v, 2*bs+8, 8, 1)
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}

// TestUnzeroedBlocksWaitForTheirSpace: a block that finds no space is not mapped.
func TestUnzeroedBlocksWaitForTheirSpace(t *testing.T) {
	r := newFullRig(t, "skip_block_zeroing")
	v := r.vol[0]
	r.fill("d", true)
	x := r.submit(v, blk.Write, 0, 8, 8, 1)
	y := r.submit(v, blk.Write, blk.FUA, bs, bs, 1)
	r.sim.Advance(20 * time.Second)
	r.wantHeld(x, y)
	r.wantMode("out_of_data_space", "queue_if_no_space")
	if f := r.status(); f[2] != "0/96" {
		t.Errorf("blocks without space are mapped: %v", f)
	}
	r.fill("d", false)
	r.sim.Advance(3 * time.Second)
	r.wantEnd(x, blk.OK)
	r.wantEnd(y, blk.OK)
	r.wantMode("rw", "queue_if_no_space")
	r.wantData(v, 8, 8, 1)
	r.wantData(v, bs, bs, 1)
}

// TestAllKindsOfWritesWaitForData: those that find no space, and those behind them;
// reads do not, of the same block either.
func TestAllKindsOfWritesWaitForData(t *testing.T) {
	r := newFullRig(t)
	v, w := r.vol[0], r.vol[1]
	for b := range uint64(3) {
		r.wantEnd(r.submit(v, blk.Write, 0, b*bs, bs, 1), blk.OK)
	}
	_, err := r.create(2, false, v)
	r.must(err)
	r.fill("d", true)
	waits := []*ioT{
		r.submit(v, blk.Write, 0, 0, 8, 2),          // copied
		r.submit(v, blk.Write, blk.FUA, bs, bs, 2),  // shared, overwritten
		r.submit(v, blk.Write, 0, 3*bs, 8, 2),       // zeroed
		r.submit(v, blk.Write, 0, 3*bs+8, 8, 2),     // in the same block
		r.submit(w, blk.Write, blk.FUA, 0, bs, 2),   // overwritten
		r.submit(w, blk.Write, blk.FUA, bs+8, 8, 2), // zeroed
	}
	r.sim.Advance(20 * time.Second)
	r.wantHeld(waits...)
	r.wantMode("out_of_data_space", "queue_if_no_space")
	r.wantData(v, 0, 3*bs, 1)
	r.wantData(v, 3*bs, bs, 0)
	r.wantEnd(r.submit(v, blk.Flush, 0, 0, 0, 0), blk.OK)
	r.wantEnd(r.submit(v, blk.Discard, 0, 2*bs, bs, 0), blk.OK)
	r.wantData(v, 2*bs, bs, 0)
	r.fill("d", false)
	r.sim.Advance(2 * time.Second)
	for _, x := range waits {
		r.wantEnd(x, blk.OK)
	}
	r.sim.Advance(time.Second)
	r.wantMode("rw", "queue_if_no_space")
	r.wantData(v, 0, 8, 2)
	r.wantData(v, 8, bs-8, 1)
	r.wantData(v, bs, bs, 2)
	r.wantData(v, 3*bs, 16, 2)
	r.wantData(w, 0, bs, 2)
	r.wantData(w, bs+8, 8, 2)
	r.wantData(r.vols[2], 0, 3*bs, 1)
}

// TestWritesToMappedBlocksWaitForData: mapped blocks may have holes if the kernel made
// the pool or with skip_block_zeroing.
func TestWritesToMappedBlocksWaitForData(t *testing.T) {
	for _, disk := range []string{"d", "m"} {
		r := newFullRig(t)
		v := r.vol[0]
		r.wantEnd(r.submit(v, blk.Write, 0, 0, bs, 1), blk.OK)
		r.wantEnd(r.submit(v, blk.Write, 0, bs, bs, 1), blk.OK)
		r.wantEnd(r.submit(v, blk.Flush, 0, 0, 0, 0), blk.OK)
		r.fill(disk, true)
		x := r.submit(v, blk.Write, 0, 0, 8, 2)
		y := r.submit(v, blk.Write, blk.FUA, bs+8, 8, 2)
		z := r.submit(v, blk.Write, blk.NoWait, 16, 8, 2)
		r.sim.Advance(20 * time.Second)
		if disk == "m" { // no metadata are changed
			r.wantEnd(x, blk.OK)
			r.wantEnd(y, blk.OK)
			r.wantEnd(z, blk.OK)
			r.wantMode("rw", "queue_if_no_space")
			continue
		}
		r.wantHeld(x, y)
		r.wantEnd(z, blk.NoSpace)
		r.wantMode("out_of_data_space", "queue_if_no_space")
		r.fill(disk, false)
		r.sim.Advance(3 * time.Second)
		r.wantEnd(x, blk.OK)
		r.wantEnd(y, blk.OK)
		r.wantMode("rw", "queue_if_no_space")
		r.wantData(v, 0, 8, 2)
		r.wantData(v, bs+8, 8, 2)
	}
}

// TestMetadataWaitForSpace: requests that need a commit wait, all others go on.
func TestMetadataWaitForSpace(t *testing.T) {
	r := newFullRig(t)
	v, w := r.vol[0], r.vol[1]
	r.wantEnd(r.submit(w, blk.Write, 0, 0, bs, 1), blk.OK)
	r.wantEnd(r.submit(w, blk.Flush, 0, 0, 0, 0), blk.OK)
	r.fill("m", true)
	r.wantEnd(r.submit(v, blk.Write, 0, 0, 8, 2), blk.OK)
	waits := []*ioT{
		r.submit(v, blk.Flush, 0, 0, 0, 0),
		r.submit(v, blk.Write, blk.FUA, 8, 8, 2),
		r.submit(v, blk.Write, 0, bs, 8, 2),
		r.submit(v, blk.Write, blk.FUA, 2*bs, bs, 2),
	}
	r.sim.Advance(20 * time.Second)
	r.wantHeld(waits...)
	r.wantMode("out_of_data_space", "queue_if_no_space")
	if err := r.message("create_thin 7"); dm.ErrnoOf(err) != syscall.ENOSPC {
		t.Fatalf("a message that cannot be committed: %v", err)
	}
	r.wantEnd(r.submit(w, blk.Write, blk.FUA, 0, 8, 2), blk.OK)
	r.wantEnd(r.submit(w, blk.Flush, 0, 0, 0, 0), blk.OK)
	r.wantEnd(r.submit(v, blk.Write, 0, 16, 8, 2), blk.OK)
	r.wantEnd(r.submit(w, blk.Discard, 0, 0, bs, 0), blk.OK)
	r.wantData(v, bs, bs, 0)
	r.fill("m", false)
	r.must(r.message("create_thin 7"))
	r.must(r.message("delete 7"))
	r.sim.Advance(2 * time.Second)
	for _, x := range waits {
		r.wantEnd(x, blk.OK)
	}
	r.wantMode("rw", "queue_if_no_space")
	for _, at := range []uint64{0, 8, 16, bs, 2 * bs} {
		r.wantData(v, at, 8, 2)
	}
}

// TestNobodyMakesSpaceInTime: waiting requests fail after a minute, later ones at once;
// I/O to mapped blocks goes on. When there is space the pool is as before.
func TestNobodyMakesSpaceInTime(t *testing.T) {
	for _, disk := range []string{"d", "m"} {
		r := newFullRig(t)
		v := r.vol[0]
		r.wantEnd(r.submit(v, blk.Write, 0, 0, bs, 1), blk.OK)
		r.fill(disk, true)
		x := r.submit(v, blk.Write, blk.FUA, bs, 8, 2)
		r.sim.Advance(58 * time.Second)
		r.wantHeld(x)
		r.sim.Advance(4 * time.Second)
		r.wantEnd(x, blk.NoSpace)
		r.wantMode("out_of_data_space", "error_if_no_space")
		for range 3 {
			r.wantEnd(r.submit(v, blk.Write, blk.FUA, 5*bs, 8, 3), blk.NoSpace)
			r.wantData(v, 0, bs, 1)
			r.sim.Advance(500 * time.Millisecond)
		}
		r.fill(disk, false)
		r.sim.Advance(2 * time.Second)
		r.wantEnd(r.submit(v, blk.Write, blk.FUA, 5*bs, 8, 3), blk.OK)
		r.sim.Advance(2 * time.Second)
		r.wantMode("rw", "queue_if_no_space")
		r.wantData(v, 5*bs, 8, 3)
	}
}

// TestSuspendWhileThereIsNoSpace: a noflush suspend of the volume or the pool defers the
// requests that wait, and a resume tries them again.
func TestSuspendWhileThereIsNoSpace(t *testing.T) {
	for _, disk := range []string{"d", "m"} {
		r := newFullRig(t)
		v, w := r.vol[0], r.vol[1]
		for b := range uint64(2) {
			r.wantEnd(r.submit(v, blk.Write, 0, b*bs, bs, 1), blk.OK)
			r.wantEnd(r.submit(w, blk.Write, 0, b*bs, bs, 1), blk.OK)
		}
		r.fill(disk, true)
		var xs []*ioT
		for _, v := range r.vol {
			xs = append(xs, r.submit(v, blk.Write, blk.FUA, 2*bs, 8, 2), r.submit(v, blk.Write, blk.FUA, 3*bs, bs, 2))
			xs = append(xs, r.submit(v, blk.Write, blk.FUA, 8, 8, 2))
		}
		r.sim.Advance(3 * time.Second)
		r.wantHeld(xs...)
		for _, d := range []*dm.Device{v.dev, r.pool} {
			suspended := false
			r.sim.Go("suspend", func() { r.must(d.Suspend(ctx, true)); suspended = true })
			r.sim.Advance(3 * time.Second)
			if !suspended {
				t.Fatalf("%s cannot be suspended", d.Name())
			}
			r.must(d.Resume(ctx, false))
			r.sim.Advance(3 * time.Second)
			r.wantHeld(xs...)
		}
		r.must(r.swap(r.pool, poolTable(96)))
		r.sim.Advance(3 * time.Second)
		r.wantHeld(xs...)
		r.wantMode("out_of_data_space", "queue_if_no_space")
		r.fill(disk, false)
		r.sim.Advance(3 * time.Second)
		for _, x := range xs {
			r.wantEnd(x, blk.OK)
			r.wantData(v, x.Sector, 8, 2)
			r.wantData(w, x.Sector, 8, 2)
		}
	}
}
