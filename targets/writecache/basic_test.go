package writecache_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/writecache"
)

func wait(r *targettest.Rig, d time.Duration) { sleep(r.Sim, d) }

func status(r *targettest.Rig, d *dm.Device) *writecache.Status {
	r.Helper()
	s, err := writecache.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	r.Must(err)
	return s
}

// small has 1000 blocks of 4 KiB for an origin of 2048.
const small = "0 16384 writecache s a b 4096 2 start_sector 8352"

// TestWrites: writes are in the cache, and on the origin after the message flush.
func TestWrites(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	r.Write(d, 0, 64, 1)
	r.Write(d, 8, 8, 2)
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, 8, 8, 8, 2)
	r.Want(d, 16, 48, 16, 1)
	r.WantDisk("a", 0, 64, 0, 0)
	if s, want := status(r, d), (writecache.Status{Blocks: 1000, Free: 992, Reads: 8, ReadHits: 8, Writes: 9, HitsUncommitted: 1, Allocated: 8}); *s != want {
		t.Errorf("%+v", s)
	}
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Write(d, 8, 16, 3)
	r.Message(d, "flush", "", 0)
	r.WantDisk("a", 0, 8, 0, 1)
	r.WantDisk("a", 8, 16, 8, 3)
	r.WantDisk("a", 24, 40, 24, 1)
	r.Want(d, 8, 16, 8, 3)
	if s := status(r, d); s.Free != 1000 || s.HitsCommitted != 1 || s.Flushes != 1 || s.Reads != 10 {
		t.Errorf("%+v", s)
	}
	r.Message(d, "Clear_Stats", "", 0)
	if s, want := status(r, d), (writecache.Status{Blocks: 1000, Free: 1000}); *s != want {
		t.Errorf("%+v", s)
	}
}

// TestWatermarks: when one is passed blocks are written back until the other is, in runs
// of up to 256; a write that finds no free block goes around the cache.
func TestWatermarks(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", strings.Replace(small, "4096 2", "4096 6 high_watermark 80 low_watermark 10", 1))
	for i := range uint64(79) {
		r.Write(d, i*80, 80, 1)
	}
	if s := status(r, d); s.Free != 1000-790 {
		t.Errorf("%+v", s)
	}
	r.Gate("a").Shut()
	r.Write(d, 79*80, 80, 1)
	if s := status(r, d); s.Free != 200 || s.Writeback != 768 {
		t.Errorf("%+v", s)
	}
	r.Write(d, 8000, 1600, 2)
	x := r.Submit(d, blk.Write, 0, 12000, 8, 3)
	r.Held(x)
	y := r.Submit(d, blk.Write, 0, 0, 8, 4) // which is being written back
	r.Held(y)
	if s := status(r, d); s.Free != 0 || s.Around != 1 || s.BlockedOnFreelist != 1 {
		t.Errorf("%+v", s)
	}
	r.Gate("a").Open()
	r.Sim.Run()
	r.Done(x, blk.OK)
	r.Done(y, blk.OK)
	r.WantDisk("a", 12000, 8, 12000, 3)
	r.Want(d, 0, 8, 0, 4)
	r.Want(d, 8, 6312, 8, 1)
	wait(r, 4*time.Second)
	if s := status(r, d); s.Free != 767 || s.Writeback != 0 {
		t.Errorf("%+v", s)
	}
	r.Want(d, 0, 8, 0, 4)
	r.Want(d, 8, 6312, 8, 1)
	r.Want(d, 8000, 1600, 8000, 2)
}

// TestAge: what is old is written back.
func TestAge(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 16384 writecache s a b 4096 2 max_age 16000")
	r.Write(d, 0, 8, 1)
	wait(r, 10*time.Second)
	r.Write(d, 80, 8, 1)
	r.WantDisk("a", 0, 8, 0, 0)
	wait(r, 7*time.Second)
	r.WantDisk("a", 0, 8, 0, 1)
	r.WantDisk("a", 80, 8, 80, 0)
	wait(r, 10*time.Second)
	r.WantDisk("a", 80, 8, 80, 1)
}

// TestFirstWrite: what comes for a block waits for its first write. If that fails, what
// was there before is read.
func TestFirstWrite(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	r.Write(d, 16, 8, 1)
	r.Message(d, "flush", "", 0)
	r.Gate("b").Shut()
	w := r.Submit(d, blk.Write, 0, 16, 8, 2)
	read := r.Submit(d, blk.Read, 0, 16, 8, 0)
	again := r.Submit(d, blk.Write, 0, 16, 16, 3)
	for _, x := range []*targettest.IO{w, read, again} {
		r.Held(x)
	}
	r.Gate("b").Open()
	r.Sim.Run()
	for _, x := range []*targettest.IO{w, read, again} {
		r.Done(x, blk.OK)
	}
	r.Want(d, 16, 16, 16, 3)
	r.Message(d, "flush", "", 0)
	if s := status(r, d); s.Free != 1000 {
		t.Errorf("%+v", s)
	}
}

// TestDiscard: a discard takes blocks out of the cache, and reaches the origin.
func TestDiscard(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	r.Write(d, 0, 64, 1)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Write(d, 64, 64, 1)
	r.Do(d, blk.Discard, 8, 100, 0, blk.IOErr)
	r.Do(d, blk.Discard, 8, 104, 0, blk.OK)
	if s := status(r, d); s.Free != 1000-3 || s.Discarded != 13 {
		t.Errorf("%+v", s)
	}
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, 112, 16, 112, 1)
	r.Do(d, blk.Discard, 0, 16384, 0, blk.OK)
	if s := status(r, d); s.Free != 1000 {
		t.Errorf("%+v", s)
	}
}

// TestReload: a new table finds what the old one has left.
func TestReload(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	r.Write(d, 0, 64, 1)
	r.Swap(d, small)
	if s := status(r, d); s.Free != 992 || s.Reads != 0 {
		t.Errorf("%+v", s)
	}
	r.Want(d, 0, 64, 0, 1)
	r.Message(d, "flush_on_suspend", "", 0)
	r.Suspend(d, false)
	r.WantDisk("a", 0, 64, 0, 1)
	r.Message(d, "flush", "", syscall.EBUSY)
	r.Resume(d)
	r.Write(d, 0, 8, 2)
	r.Must(d.Close())
	d = r.Device("y", small)
	r.Want(d, 0, 8, 0, 2)
	r.Want(d, 8, 56, 8, 1)
}

// TestCleaner: everything goes to the origin.
func TestCleaner(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", small)
	r.Write(d, 0, 64, 1)
	r.Message(d, "cleaner", "", 0)
	wait(r, time.Second)
	if s := status(r, d); s.Free != 1000 {
		t.Errorf("%+v", s)
	}
	r.Write(d, 8, 8, 2)
	r.WantDisk("a", 8, 8, 8, 2)
	r.Want(d, 0, 8, 0, 1)
	r.Want(d, 8, 8, 8, 2)
	if s := status(r, d); s.Around != 1 {
		t.Errorf("%+v", s)
	}
}

func TestLines(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 4096 writecache S a b 512 18 PAUSE_writeback 5 cleaner Start_Sector 0 high_watermark 60 low_watermark 60 writeback_jobs 4294967299 autocommit_blocks 7 autocommit_time 20 max_age 30000 metadata_only")
	r.Lines(d, dm.TableText, "0 4096 writecache s 7:0 7:1 512 18 start_sector 0 high_watermark 60 low_watermark 60 writeback_jobs 3 autocommit_blocks 7 autocommit_time 20 max_age 30000 cleaner metadata_only pause_writeback 5")
	r.Lines(d, dm.Info, "0 4096 writecache 0 15887 15887 0 0 0 0 0 0 0 0 0 0 0")
	r.Message(d, "flush now", "", syscall.EINVAL)
	r.Message(d, "flash", "", syscall.EINVAL)
	r.Must(d.Close())
	r.Refuses(`
		0 64 writecache => EINVAL Bad arguments
		0 64 writecache x a b 4096 0 => EINVAL Bad arguments
		0 64 writecache s a => EINVAL Bad arguments
		0 64 writecache s a b => EINVAL Bad arguments
		0 64 writecache s a nothing 4096 0 => ENODEV Cache data device lookup failed
		0 64 writecache s nothing b 4096 0 => ENODEV Origin data device lookup failed
		0 64 writecache s a b 256 0 => EINVAL Invalid block size
		0 64 writecache s a b 8192 0 => EINVAL Invalid block size
		0 64 writecache s a b 3000 0 => EINVAL Invalid block size
		0 64 writecache s a b 4096 => EINVAL Invalid number of feature args
		0 64 writecache s a b 4096 19 => EINVAL Invalid number of feature args
		0 64 writecache s a c 4096 1 fua => EINVAL Invalid optional argument
		0 64 writecache s a c 4096 1 start_sector => EINVAL Invalid optional argument
		0 64 writecache s a c 4096 2 start_sector 16384 => EINVAL Invalid optional argument
		0 64 writecache s a c 4096 2 high_watermark 101 => EINVAL Invalid optional argument
		0 64 writecache s a c 4096 2 high_watermark 44 => EINVAL High watermark must be greater than or equal to low watermark
		0 64 writecache s a c 4096 2 autocommit_time 3600001 => EINVAL Invalid optional argument
		0 64 writecache s a b 4096 0 => EINVAL Block size does not match superblock
	`)
}

// TestSuite runs the conformance suite of devices, with power cuts.
func TestSuite(t *testing.T) {
	for name, table := range map[string]string{
		"large":   "0 16384 writecache s a b 512 0",
		"small":   "0 16384 writecache s a b 4096 6 start_sector 16000 autocommit_blocks 3 writeback_jobs 2",
		"cleaner": "0 16384 writecache s a b 1024 1 cleaner",
	} {
		t.Run(name, func(t *testing.T) { targettest.Conforms(t, blktest.Suite{}, types, table) })
	}
}
