package thin

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"udm/blk"
	"udm/dm"
	"udm/internal/invariants"
	"udm/targets/internal/prison"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

// nearlyFull is a pool with little metadata space, a few blocks of it free, and its
// volume, of which the returned number of blocks is written. They lie far apart, so
// that each write changes a different leaf.
func nearlyFull(t *testing.T, features ...string) (*rig, *dm.Device, uint64) {
	r := newRig(t)
	r.Disk("m").Resize(96 * 8)
	r.start(1<<15, append(features, "skip_block_zeroing")...)
	d := r.thin(0, 1<<20)
	p, th := r.internals(d)
	n := uint64(0)
	for ; p.md.FreeMetadata() > 14; n += 32 {
		r.Write(d, scattered(n), 8, n)
		r.Sim.Go("map", func() { p.call(func() { r.Must(th.mapBlocks(n+1, n+32)) }) })
		r.Sim.Run()
		r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	}
	return r, d, n
}

// mapBlocks maps the blocks begin to end, in order of writing, without a write.
func (t *thin) mapBlocks(begin, end uint64) error {
	t.pool.change(t.vol)
	for i := begin; i < end; i++ {
		data, err := t.pool.md.AllocDataBlock()
		if err == nil {
			b := scattered(i) / bs
			err = t.pool.modify(t.vol.td.InsertCost(b), func() error { return t.vol.td.Insert(b, data) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scattered is the first sector of the nth block to be written.
func scattered(n uint64) uint64 { return n * 7919 * 131 % (1 << 20) * bs }

// inOrder checks that a pool has lost nothing, whether it has stopped or not.
func (r *rig) inOrder() (stopped bool) {
	r.Helper()
	f := r.info(r.pool)
	if f[7] != "-" {
		r.Fatalf("status %v: a healthy pool is to be checked", f)
	}
	return f[4] == "ro"
}

// TestBurstLosesNothing: one pass has so many writes that they would use up the reserve.
func TestBurstLosesNothing(t *testing.T) {
	r, d, n := nearlyFull(t)
	first, looks := n, uint64(300)
	if testing.Short() {
		looks = 30
	}
	r.Write(d, scattered(n), 8, n) // acknowledged and not committed
	n++
	burst := func(size uint64) (failed int) {
		var xs []*ioT
		for i := range size {
			xs = append(xs, r.send(d, blk.Write, 0, scattered(n+i), 8, n+i))
		}
		r.Sim.Run()
		for i, x := range xs {
			if x.Ends != 1 {
				t.Fatalf("write %d ended %d times", i, x.Ends)
			}
			if x.Status() != blk.OK {
				failed++
			}
		}
		for i := max(first, n-looks); i < n; i++ {
			r.Want(d, scattered(i), 8, scattered(i), i)
		}
		for i, x := range xs {
			if x.Status() == blk.OK {
				r.Want(d, scattered(n+uint64(i)), 8, scattered(n+uint64(i)), n+uint64(i))
			}
		}
		return failed
	}
	if failed := burst(130); failed > 0 && !r.inOrder() {
		t.Fatalf("%d writes failed in a pool that goes on", failed)
	}
	stopped := r.inOrder()
	for i := 0; !stopped; i++ {
		n += 130
		if burst(130); i > 100 {
			t.Fatal("the metadata never fill up")
		}
		stopped = r.inOrder()
	}
	// Everything acknowledged is there when the pool is opened again.
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	for i := uint64(0); i < n; i++ {
		if i >= first || i%32 == 0 {
			r.Want(d, scattered(i), 8, scattered(i), i)
		}
	}
}

// TestMessagesOfAFullPoolFailInGoodOrder: a volume for which there is no metadata block
// does not exist afterwards, and nothing else is lost.
func TestMessagesOfAFullPoolFailInGoodOrder(t *testing.T) {
	r, d, n := nearlyFull(t)
	r.Write(d, scattered(n), 8, n)
	var err error
	id := 1
	for ; err == nil && id < 1000; id++ {
		r.Sim.Go("message", func() { _, err = r.pool.Message(0, fmt.Sprint("create_thin ", id)) })
		r.Sim.Run()
	}
	if e := dm.ErrnoOf(err); e != syscall.ENOSPC && e != syscall.EOPNOTSUPP {
		t.Fatalf("%d volumes, then %v", id, err)
	}
	r.inOrder()
	r.Want(d, scattered(n), 8, scattered(n), n)
}

// TestNoLeakOfADiscardUnderWay: the pool turns read-only while the data device
// discards.
func TestNoLeakOfADiscardUnderWay(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 4*bs, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	p, _ := r.internals(d)
	r.Gate("d").Shut()
	x := r.send(d, blk.Discard, 0, 0, 2*bs, 0)
	r.Sim.Run()
	r.held("d", "discard 0+256")
	r.Sim.Go("commit", func() {
		p.call(func() {
			_ = p.md.Commit()
			p.metadataFailed(syscall.EIO)
		})
	})
	r.flushed()
	r.held("d", "discard 0+256") // it ends after the commit
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	if f := r.info(r.pool); f[2] != "2/64" {
		t.Errorf("status %v", f)
	}
}

// TestNoLeakOfABlockInPreparation: a power cut, or the end of the pool, while a
// block is zeroed leaves it free, whatever was committed meanwhile.
func TestNoLeakOfABlockInPreparation(t *testing.T) {
	r, d, w := zeroing(t)
	p, _ := r.internals(d)
	done := false
	r.Sim.Go("commit", func() { p.call(func() { done = p.md.Commit() == nil }) })
	if r.flushed(); !done {
		t.Fatal("no commit")
	}
	report, err := thintools.Check(r.Sim, r.Disk("m").CrashCloneNone(), thintools.CheckOptions{})
	if err != nil || report.Err() != nil {
		t.Errorf("after a power cut: %v, %v", err, report.Err())
	}
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(w, blk.OK)
}

// flushed lets the flush of a commit through the closed gate of the data device.
func (r *rig) flushed() {
	r.Helper()
	r.Sim.Run()
	for _, q := range r.Gate("d").Held() {
		if q.Op == blk.Flush {
			r.Gate("d").Release(q.Index)
		}
	}
	r.Sim.Run()
}

// TestMessageTellsOfAFailedCommit: a message that was rolled back fails.
func TestMessageTellsOfAFailedCommit(t *testing.T) {
	for _, text := range []string{"create_thin 7", "create_snap 7 0", "delete 1", "set_transaction_id 0 4"} {
		t.Run(text, func(t *testing.T) {
			r := newRig(t)
			r.start(64)
			d := r.thin(0, 64)
			r.msg("create_thin 1")
			r.Write(d, 0, 8, 1)
			r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
			var err error
			r.failOnce("m", blk.Write, func() {
				r.Sim.Go("message", func() { _, err = r.pool.Message(0, text) })
				r.Sim.Run()
			})
			if err == nil {
				t.Error("answered well, and its commit failed")
			}
			if f := r.info(r.pool); f[4] != "ro" || f[0] != "0" {
				t.Errorf("status %v", f)
			}
		})
	}
}

// TestSnapshotOfAnOriginInUse: a write that is in flight when the snapshot is made
// and ends later is in the origin.
func TestSnapshotOfAnOriginInUse(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	r.Write(d, 0, bs, 1)
	r.Gate("d").Shut()
	w := r.send(d, blk.Write, 0, 8, 8, 2)
	r.Sim.Run()
	made := false
	r.Sim.Go("message", func() {
		_, err := r.pool.Message(0, "create_snap 1 0")
		made = err == nil
	})
	r.Sim.Run()
	w2 := r.send(d, blk.Write, 0, 24, 8, 3)
	r.Sim.Run()
	// A copy made now would be made before the write has reached the disk.
	for _, q := range r.Gate("d").Held() {
		if q.Op == blk.Read || q.Sector != 8 {
			r.Gate("d").Release(q.Index)
		}
	}
	r.Sim.Run()
	r.Gate("d").Open()
	r.Sim.Run()
	r.Done(w, blk.OK)
	r.Done(w2, blk.OK)
	if !made {
		t.Fatal("no snapshot")
	}
	r.Want(d, 8, 8, 8, 2)
	r.Want(d, 24, 8, 24, 3)
	s := r.open(1, 16)
	r.Want(s, 8, 8, 8, 2) // it was sent before, and the snapshot waited for it
	r.Want(s, 24, 8, 24, 1)
}

// TestNeedsCheckReachesTheDisk: only the superblock can be written, and flushes fail.
func TestNeedsCheckReachesTheDisk(t *testing.T) {
	for _, super := range []bool{true, false} {
		r := newRig(t)
		r.start(64)
		d := r.thin(0, 64)
		r.Write(d, 0, 8, 1)
		r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
		r.failSome("m", func(q blkRequest) bool {
			return q.Op == blk.Flush || q.Op == blk.Write && (q.Sector >= 8 || !super)
		}, func() {
			r.Write(d, bs, 8, 2)
			r.Done(r.Submit(d, blk.Flush, 0, 0, 0, 0), blk.IOErr)
		})
		s, err := thinmeta.ReadSuper(r.Sim, r.Disk("m"))
		if err != nil || s.NeedsCheck() != super {
			t.Fatalf("the superblock can be written: %v; the disk has the flag: %v, %v", super, s.NeedsCheck(), err)
		}
		if f := r.info(r.pool); f[4] != "ro" || (f[7] == "needs_check") != super {
			t.Errorf("status %v; the disk has the flag: %v", f, super)
		}
		// The disk works again: the pool stays read-only, and now the flag is written.
		r.Swap(r.pool, poolTable(64))
		if f := r.info(r.pool); f[4] != "ro" || f[7] != "needs_check" {
			t.Errorf("status %v", f)
		}
		s, err = thinmeta.ReadSuper(r.Sim, r.Disk("m"))
		if err != nil || !s.NeedsCheck() {
			t.Errorf("the disk has no flag: %v", err)
		}
	}
}

// TestReleaseOfADamagedMetadataSnapshot: the message fails and the pool goes on.
func TestReleaseOfADamagedMetadataSnapshot(t *testing.T) {
	for _, what := range []string{"superblock", "tree"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			r.start(64)
			d := r.thin(0, 64)
			r.Write(d, 0, 8, 1)
			r.msg("reserve_metadata_snap")
			r.Write(d, bs, 8, 2) // the trees part
			r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
			s, err := thinmeta.ReadSuper(r.Sim, r.Disk("m"))
			r.Must(err)
			bad := s.HeldRoot
			if what == "tree" {
				held := make([]byte, 4096)
				r.Must(blk.ReadSectors(r.Sim, r.Disk("m"), held, bad*8))
				var copied thinmeta.Super
				copied.Decode(held)
				bad = copied.MappingRoot
			}
			before := make([]byte, 4096)
			r.Must(blk.ReadSectors(r.Sim, r.Disk("m"), before, bad*8))
			r.Must(blk.WriteSectors(r.Sim, r.Disk("m"), make([]byte, 4096), bad*8, 0))
			p, _ := r.internals(d)
			r.Sim.Go("forget", func() { p.call(func() { _ = p.md.Undo() }) }) // nothing is cached
			r.Sim.Run()
			r.Message(r.pool, "release_metadata_snap", "", syscall.EILSEQ)
			if f := r.info(r.pool); f[4] != "rw" || f[7] != "-" || f[3] == "-" {
				t.Errorf("status %v", f)
			}
			r.Write(d, 2*bs, 8, 3)
			r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
			r.Must(blk.WriteSectors(r.Sim, r.Disk("m"), before, bad*8, 0))
			r.msg("release_metadata_snap")
		})
	}
}

// Pairs of steps that belong together, with a second thread between them.

// TestCellIsHeldBetweenVisitAndErase: no bio joins a cell whose bios have been taken
// out.
func TestCellIsHeldBetweenVisitAndErase(t *testing.T) {
	p := prison.New()
	key := prison.Block(true, 1, 7)
	cell := p.Detain(key, nil)
	joined := make(chan bool, 1)
	p.VisitRelease(cell, func(*prison.Cell) {
		go func() { joined <- p.Detain(key, nil) == nil }()
		for range 1000 {
			runtime.Gosched()
		}
	})
	if <-joined {
		t.Error("a bio joined a cell that was being released")
	}
}

// TestBiosOfACellAreCountedWhenItIsErased: from the release on, a discard waits for
// them. The holder has ended by then.
func TestBiosOfACellAreCountedWhenItIsErased(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	r.Write(d, 0, bs, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	p, th := r.internals(d)
	th.vol.cache.clear()
	var joined *ioT
	looked := false
	p.tests.afterVisit = func() {
		looked = looked || joined != nil
		waits := make(chan bool)
		go func() { waits <- p.allIO.AddWork(func() {}) }()
		if !<-waits {
			t.Error("the bios of a cell that is released are not in flight")
		}
	}
	th.vol.changed.Store(true) // the owner is to see the holder
	w := r.send(d, blk.Write, blk.FUA, 0, 8, 2)
	w.End = func(*blk.Bio) {
		w.Ends++
		th.vol.cache.clear()
		joined = r.send(d, blk.Write, 0, 8, 8, 3)
	}
	r.Sim.Run()
	r.Done(w, blk.OK)
	r.Done(joined, blk.OK)
	if !looked {
		t.Fatal("no cell with another bio was released")
	}
}

// TestHolderIsInFlight: the bio that holds a cell is counted when the cell is
// released, also when it is the only one.
func TestHolderIsInFlight(t *testing.T) {
	for name, mapped := range map[string]bool{"provisioned": false, "mapped": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, noZeroes)
			r.start(64)
			d := r.thin(0, 16)
			p, th := r.internals(d)
			if mapped {
				r.Write(d, 0, bs, 1)
				th.vol.cache.clear()
			}
			looked := false
			p.tests.afterVisit = func() {
				looked = true
				if !p.allIO.AddWork(func() {}) {
					t.Error("the holder of a cell that is released is not in flight")
				}
			}
			r.Gate("d").Shut()
			w := r.send(d, blk.Write, blk.FUA, 0, 8, 2)
			r.Sim.Run()
			for len(r.Gate("d").Held()) > 0 {
				r.release("d")
				r.Sim.Run()
			}
			r.Done(w, blk.OK)
			if !looked {
				t.Fatal("no cell was released")
			}
		})
	}
}

// TestHitIsLookedAtAgain: an entry that another thread erases between its lookup and
// the count of the bio is not used.
func TestHitIsLookedAtAgain(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 16)
	r.Write(d, 0, bs, 1)
	r.Want(d, 0, 8, 0, 1)
	p, th := r.internals(d)
	block := uint64(0)
	word, tag := th.vol.cache.table.Load().at(block)
	if !match(word.Load(), tag) {
		t.Fatal("the block is not cached")
	}
	for name, gone := range map[string]func(){
		"entry": func() { th.vol.cache.erase(block, block+1) },
		"table": func() { th.vol.cache.clear() },
	} {
		r.Want(d, 0, 8, 0, 1)
		r.Want(d, 0, 8, 0, 1) // cached again
		c := &dm.Clone{PerIO: th.NewPerIO()}
		c.Op, c.Sectors = blk.Read, 8
		looked := false
		p.tests.beforeEnter = func() {
			looked = true
			done := make(chan bool)
			go func() { gone(); done <- true }()
			<-done
		}
		mapped := th.mapCached(c)
		p.tests.beforeEnter = nil
		if invariants.Enabled && !looked {
			t.Fatalf("%s: not mapped by the cache", name)
		}
		if looked && mapped {
			t.Errorf("%s: a permit that was taken back was used", name)
		}
		if looked && p.allIO.AddWork(func() {}) {
			t.Errorf("%s: a bio that went no further is still counted", name)
		}
	}
}
