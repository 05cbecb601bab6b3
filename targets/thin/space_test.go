package thin

import (
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
)

// mode checks the pool's mode and no-space words.
func (r *rig) mode(mode, noSpace string) {
	r.Helper()
	if f := r.info(r.pool); len(f) < 7 || f[4] != mode || f[6] != noSpace {
		r.Errorf("status %v, want %s … %s", f, mode, noSpace)
	}
}

func (r *rig) events() uint32 { return r.pool.Status().EventNr }

// full is a pool of 8 blocks, all in use by volume 0, which has 64.
func full(t *testing.T, features ...string) (*rig, *dm.Device) {
	r := newRig(t)
	r.start(8, features...)
	d := r.thin(0, 64)
	r.Write(d, 0, 8*bs, 1)
	return r, d
}

func TestErrorIfNoSpace(t *testing.T) {
	r, d := full(t, "error_if_no_space")
	r.mode("rw", "error_if_no_space")
	before := r.events()
	r.Do(d, blk.Write, 1024, 128, 3, blk.NoSpace)
	r.mode("out_of_data_space", "error_if_no_space")
	if got := r.events(); got <= before {
		t.Error("no event")
	}
	r.Write(d, 0, 8, 4) // mapped blocks go on
	r.Do(d, blk.Write, 2000, 8, 3, blk.NoSpace)
	r.Want(d, 1024, 128, 1024, 0)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Do(d, blk.Discard, 512, 128, 0, blk.OK)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.mode("rw", "error_if_no_space")
	r.usage(7)
	r.Write(d, 2048, 128, 5)
	r.usage(8)
	r.Lines(d, dm.Info, "0 8192 thin 1024 2175")
}

func TestQueuedWritesGoOnWhenThePoolHasGrown(t *testing.T) {
	r, d := full(t)
	var xs []*ioT
	for i := range uint64(6) {
		xs = append(xs, r.Submit(d, blk.Write, blk.Flags(i%2)*blk.FUA, 1024+i*100, 8, 10+i))
	}
	r.mode("out_of_data_space", "queue_if_no_space")
	r.Sim.Advance(59 * time.Second)
	for _, x := range xs {
		r.Held(x)
	}
	r.Disk("d").Resize(64 * bs)
	r.Swap(r.pool, poolTable(64))
	r.Sim.Run()
	for _, x := range xs {
		r.Done(x, blk.OK)
		r.Want(d, x.Sector, 8, x.Sector, (x.Sector-1024)/100+10)
	}
	r.mode("rw", "queue_if_no_space")
	r.Sim.Advance(2 * time.Minute)
	r.mode("rw", "queue_if_no_space")
}

func TestQueuedWritesFailAfterAMinute(t *testing.T) {
	r, d := full(t)
	x := r.Submit(d, blk.Write, 0, 1024, 8, 3)
	before := r.events()
	r.Sim.Advance(59 * time.Second)
	r.Held(x)
	r.Sim.Advance(2 * time.Second)
	r.Done(x, blk.NoSpace)
	r.mode("out_of_data_space", "error_if_no_space")
	if r.events() <= before {
		t.Error("no event")
	}
	r.Do(d, blk.Write, 2000, 8, 3, blk.NoSpace)
	r.Lines(r.pool, dm.TableText, "0 1024 thin-pool 7:12 7:3 128 0 0 ")
	r.Disk("d").Resize(64 * bs)
	r.Swap(r.pool, poolTable(64))
	r.mode("rw", "queue_if_no_space")
	r.Write(d, 1024, 8, 3)
}

func TestQueuedWritesGoOnAfterADiscard(t *testing.T) {
	r, d := full(t)
	x := r.Submit(d, blk.Write, 0, 1024, 8, 3)
	r.Held(x)
	r.Do(d, blk.Discard, 0, 128, 0, blk.OK)
	r.Held(x)
	r.Sim.Advance(3 * time.Second) // the periodic commit frees the block
	r.Done(x, blk.OK)
	r.mode("rw", "queue_if_no_space")
	r.usage(8)
}

func TestBlocksFreedInThisTransactionAreFoundByACommit(t *testing.T) {
	r, d := full(t)
	r.Do(d, blk.Discard, 0, 128, 0, blk.OK)
	r.Write(d, 1024, 8, 3)
	r.mode("rw", "queue_if_no_space")
	r.usage(8)
}

func TestLowWaterEventComesOnceForEachResume(t *testing.T) {
	r := newRig(t)
	r.pool = r.Device("pool", "0 8192 thin-pool m d 128 60")
	d := r.thin(0, 64)
	r.Write(d, 0, 3*bs, 1)
	if got := r.events(); got != 0 {
		t.Fatalf("%d events with 61 free blocks", got)
	}
	r.Write(d, 3*bs, 3*bs, 1)
	if got := r.events(); got != 1 {
		t.Fatalf("%d events with less than 60 free blocks", got)
	}
	r.Suspend(r.pool, false)
	r.Resume(r.pool)
	r.Sim.Run()
	r.Write(d, 10*bs, bs, 1)
	if got := r.events(); got != 2 {
		t.Fatalf("%d events after a resume", got)
	}
}

func TestMetadataThresholdRaisesAnEvent(t *testing.T) {
	r := newRig(t)
	r.start(64)
	for i := 0; r.events() == 0; i++ {
		if i > 500 {
			t.Fatal("no event")
		}
		r.msg("create_thin %d", i)
	}
}

// outOfMetadata fills the metadata of a small pool.
func outOfMetadata(t *testing.T) (*rig, *dm.Device) {
	r := newRig(t)
	r.Disk("m").Resize(64 * 8)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8, 1)
	for i := 1; ; i++ {
		if i > 100 {
			t.Fatal("metadata never full")
		}
		if _, err := r.pool.Message(0, "create_thin "+itoa(i)); dm.ErrnoOf(err) == syscall.EOPNOTSUPP {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return r, d
}

func itoa(i int) string {
	if i < 10 {
		return string(rune('0' + i))
	}
	return itoa(i/10) + itoa(i%10)
}

func TestOutOfMetadataUntilTheDeviceGrows(t *testing.T) {
	r, d := outOfMetadata(t)
	r.mode("ro", "queue_if_no_space")
	if f := r.info(r.pool); f[7] != "-" {
		t.Fatalf("status %v", f)
	}
	r.Write(d, 0, 8, 2)
	r.Do(d, blk.Write, 1024, 8, 2, blk.IOErr)
	r.Do(d, blk.Discard, 0, 128, 0, blk.OK)
	r.Want(d, 0, 8, 0, 2)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Disk("m").Resize(4096)
	r.Suspend(r.pool, false)
	r.Resume(r.pool)
	r.mode("rw", "queue_if_no_space")
	if f := r.info(r.pool); f[1][len(f[1])-4:] != "/512" {
		t.Fatalf("status %v", f)
	}
	r.Write(d, 1024, 8, 2)
	r.msg("create_thin 1000")
}

func TestReadOnlyPool(t *testing.T) {
	r := newRig(t)
	r.start(64)
	d := r.thin(0, 64)
	r.Write(d, 0, 8, 1)
	r.Write(d, bs, 8, 1)
	r.Suspend(d, false)
	r.msg("create_snap 1 0")
	r.Resume(d)
	r.Write(d, bs, 8, 2)
	r.Swap(r.pool, poolTable(64, "read_only"))
	r.mode("ro", "queue_if_no_space")
	r.Write(d, bs, 8, 3)                      // mapped and not shared
	r.Do(d, blk.Write, 0, 8, 2, blk.IOErr)    // shared
	r.Do(d, blk.Write, 4*bs, 8, 2, blk.IOErr) // not mapped
	r.Do(d, blk.Discard, 0, 2*bs, 0, blk.OK)  // does nothing
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, bs, 8, bs, 3)
	r.Want(d, 4*bs, 8, 4*bs, 0)
	r.Swap(r.pool, poolTable(64))
	r.mode("rw", "queue_if_no_space")
	r.Write(d, 0, 8, 2)
}
