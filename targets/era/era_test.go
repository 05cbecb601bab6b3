package era_test

import (
	"fmt"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/era"
	"udm/targets/era/eratools"
	"udm/targets/internal/targettest"
)

var types = []*dm.Type{era.Type()}

const bs = 16 // sectors in a block

// table is a device of 64 blocks and a bit: metadata on disk a, origin b.
const table = "0 1030 era a b 16"

// newRig returns a rig whose metadata are checked once it is closed.
func newRig(t *testing.T) *targettest.Rig {
	t.Helper()
	var r *targettest.Rig
	t.Cleanup(func() { sound(t, r.Disk("a")) })
	r = targettest.New(t, types)
	return r
}

// sound checks the metadata on a disk.
func sound(t testing.TB, d blk.Device) {
	t.Helper()
	rep, err := eratools.Check(simOf(), d, false)
	if err == nil {
		err = rep.Err()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestConforms runs the suite over disks with volatile caches whose power is cut.
func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 4096 era a b 16")
}

func TestRefusals(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 era a b => EINVAL Invalid argument count
		0 64 era a b 8 8 => EINVAL Invalid argument count
		0 64 era / b 8 => EINVAL Error opening metadata device
		0 64 era a / 8 => EINVAL Error opening data device
		0 64 era a b x => EINVAL Error parsing block size
		0 64 era a b 8x => EINVAL Error parsing block size
		0 64 era a b 0 => EINVAL Invalid block size
		0 64 era a b 12 => EINVAL Invalid block size
		0 64 era a b 4294967296 => EINVAL Invalid block size`)
}

// TestLines has the lines of a device through its life.
func TestLines(t *testing.T) {
	r := newRig(t)
	d := r.Device("x", table)
	r.Lines(d, dm.TableText, "0 1030 era 7:0 7:1 16")
	r.Lines(d, dm.Info, "0 1030 era 8 9/2048 1 -")
	r.Message(d, "CHECKPOINT", "", 0)
	r.Message(d, "take_metadata_snap", "", 0)
	r.Message(d, "take_metadata_snap", "", syscall.EINVAL)
	s, err := era.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	if r.Must(err); s.Era != 3 || s.MetadataSnap == 0 {
		t.Errorf("%v", s)
	}
	r.Message(d, "drop_metadata_snap", "", 0)
	r.Message(d, "drop_metadata_snap", "", syscall.EINVAL)
	r.Message(d, "drop_metadata_snap now", "", syscall.EINVAL)
	r.Message(d, "check_point", "", syscall.EINVAL)
	r.Suspend(d, false)
	r.Resume(d)
	s, err = era.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	if r.Must(err); s.Era != 4 || s.MetadataSnap != 0 {
		t.Errorf("%v", s)
	}
}

// since is the blocks that were written since an era, as runs.
func since(t *testing.T, d blk.Device, n uint32, snap bool) (runs string) {
	t.Helper()
	err := eratools.WrittenSince(simOf(), d, n, snap, func(begin, end uint32) error {
		runs += fmt.Sprintf("%d-%d ", begin, end)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return runs
}

// TestWrittenSince: each era tells of its writes and discards, and of nothing else.
func TestWrittenSince(t *testing.T) {
	r := newRig(t)
	d := r.Device("x", table)
	r.Write(d, 0, 8, 1)
	r.Write(d, 3*bs-1, 2, 1)
	r.Message(d, "checkpoint", "", 0) // era 2
	r.Do(d, blk.Discard, 10*bs+1, 3*bs, 0, blk.OK)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Message(d, "take_metadata_snap", "", 0) // era 3
	r.Write(d, 1024, 6, 1)
	r.Write(d, 0, 8, 1)
	r.Do(d, blk.Read, 5*bs, bs, 0, blk.OK)
	for n, want := range map[uint32]string{0: "0-65 ", 1: "0-1 2-4 10-14 64-65 ", 2: "0-1 10-14 64-65 ", 3: "0-1 64-65 ", 4: ""} {
		if got := since(t, r.Disk("a").CrashClone(1), n, false); got != want {
			t.Errorf("after a power cut, since era %d: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[uint32]string{1: "0-1 2-4 10-14 ", 2: "10-14 ", 3: ""} {
		if got := since(t, r.Disk("a"), n, true); got != want {
			t.Errorf("of the snapshot, since era %d: %q, want %q", n, got, want)
		}
	}
	r.Must(d.Close())
	if got, want := since(t, r.Disk("a"), 2, false), "0-1 10-14 64-65 "; got != want {
		t.Errorf("at the end: %q, want %q", got, want)
	}
}

// TestResize: a device that grows keeps what is known; one that shrinks forgets what is
// behind its end.
func TestResize(t *testing.T) {
	r := newRig(t)
	d := r.Device("x", table)
	r.Write(d, 63*bs, bs, 1)
	r.Swap(d, "0 16000 era a b 16")
	r.Write(d, 999*bs, bs, 1)
	if got := since(t, r.Disk("a"), 1, false); got != "63-64 999-1000 " {
		t.Error(got)
	}
	r.Swap(d, "0 320 era a b 16")
	r.Write(d, 5*bs, bs, 1)
	if got := since(t, r.Disk("a"), 1, false); got != "5-6 " {
		t.Error(got)
	}
}

// TestLoadedBeforeTheLastWrites: a table that was loaded while another one wrote the
// metadata reads them again.
func TestLoadedBeforeTheLastWrites(t *testing.T) {
	r := newRig(t)
	d := r.Device("x", table)
	specs, err := dm.ParseTable(table)
	r.Must(err)
	r.Must(d.Load(specs, dm.Mode{Write: true}))
	r.Write(d, 7*bs, bs, 1)
	r.Message(d, "checkpoint", "", 0)
	r.Resume(d)
	r.Lines(d, dm.Info, "0 1030 era 8 13/2048 3 -")
	if got := since(t, r.Disk("a"), 1, false); got != "7-8 " {
		t.Error(got)
	}
}

// TestOtherBlockSize: metadata keep their block size.
func TestOtherBlockSize(t *testing.T) {
	r := newRig(t)
	r.Must(r.Device("x", table).Close())
	d, err := r.Control.Create("y", "", -1)
	r.Must(err)
	specs, _ := dm.ParseTable("0 1024 era a b 32")
	if err := d.Load(specs, dm.Mode{Write: true}); dm.ErrnoOf(err) != syscall.EINVAL {
		t.Error(err)
	}
}

// TestMarkedWritesDoNotWait: only the first write of an era to a block writes metadata.
func TestMarkedWritesDoNotWait(t *testing.T) {
	r := newRig(t)
	d := r.Device("x", table)
	r.Write(d, 0, bs, 1)
	r.Gate("a").Forget()
	r.Write(d, 0, bs, 2)
	r.Write(d, 3, 5, 3)
	r.Trace("a", "")
	r.Message(d, "checkpoint", "", 0)
	r.Gate("a").Forget()
	r.Write(d, 3, 5, 3)
	if r.Gate("a").Trace() == "" {
		t.Error("the first write of an era to a block is not in the metadata")
	}
}
