package cache_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/cache"
	"udm/targets/cache/cachemeta"
	"udm/targets/internal/targettest"
)

var types = []*dm.Type{cache.Type()}

// The disks of rigs: a is the metadata, b the cache, c the origin; each has 256 blocks.
const (
	bs        = 64
	writeback = "0 16384 cache a b c 64 2 metadata2 writeback smq 0"
	through   = "0 16384 cache a b c 64 2 metadata2 writethrough smq 0"
	around    = "0 16384 cache a b c 64 2 metadata2 passthrough smq 0"
	cleaner   = "0 16384 cache a b c 64 2 metadata2 writethrough cleaner 0"
)

func status(r *targettest.Rig, d *dm.Device) *cache.Status {
	r.Helper()
	s, err := cache.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	r.Must(err)
	return s
}

// wait lets time pass.
func wait(r *targettest.Rig, d time.Duration) {
	w, over := r.Sim.NewWait(), false
	r.Sim.AfterFunc(d, func() { over = true })
	w.Until(func() bool { return over })
}

// TestWriteback: the write of a whole block goes to the cache, and to the origin when
// nothing else happens, or with the cleaner.
func TestWriteback(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", writeback)
	r.Write(d, 0, bs, 1)
	r.Write(d, bs+8, 8, 2)
	r.Want(d, 0, bs, 0, 1)
	r.Want(d, bs+8, 8, bs+8, 2)
	if s := status(r, d); s.Resident != 1 || s.Dirty != 1 || s.Promotions != 1 || s.WriteMisses != 1 || s.ReadHits != 1 || s.ReadMisses != 1 {
		t.Errorf("%+v", s)
	}
	r.WantDisk("c", 0, bs, 0, 0)
	r.WantDisk("c", bs+8, 8, bs+8, 2)
	r.Write(d, 4, 4, 3)
	r.Want(d, 0, 4, 0, 1)
	r.Want(d, 4, 4, 4, 3)
	wait(r, 5*time.Second)
	if s := status(r, d); s.Dirty != 0 || s.Resident != 1 {
		t.Errorf("%+v", s)
	}
	r.WantDisk("c", 0, 4, 0, 1)
	r.WantDisk("c", 4, 4, 4, 3)
	r.Write(d, 8, 8, 4)
	r.Swap(d, cleaner)
	wait(r, 5*time.Second)
	r.WantDisk("c", 8, 8, 8, 4)
	if s := status(r, d); s.Dirty != 0 || s.Resident != 1 || s.Policy != "cleaner" {
		t.Errorf("%+v", s)
	}
}

// TestWritethrough: writes to a block of the cache are on both disks when they end.
func TestWritethrough(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", writeback)
	r.Write(d, 0, bs, 1)
	wait(r, 5*time.Second)
	r.Swap(d, through)
	r.Write(d, 8, 8, 2)
	r.WantDisk("c", 8, 8, 8, 2)
	r.Want(d, 8, 8, 8, 2)
	s := status(r, d)
	if s.Dirty != 0 || s.WriteHits != 1 || s.ReadHits != 1 {
		t.Errorf("%+v", s)
	}
	r.Write(d, bs, bs, 3)
	if s := status(r, d); s.Resident != 1 {
		t.Errorf("%+v", s)
	}
}

// TestPassthrough: what is written leaves the cache; a message takes out more.
func TestPassthrough(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", writeback)
	r.Write(d, 0, bs, 1)
	r.Write(d, 2*bs, bs, 1)
	r.Message(d, "invalidate_cblocks 0", "", syscall.EPERM)
	wait(r, 5*time.Second)
	r.Swap(d, around)
	r.Write(d, 8, 8, 2)
	r.Want(d, 0, 8, 0, 1)
	r.WantDisk("c", 8, 8, 8, 2)
	if s := status(r, d); s.Resident != 1 || s.Demotions != 1 || s.Mode != cache.Passthrough {
		t.Errorf("%+v", s)
	}
	r.Message(d, "invalidate_cblocks 0-257", "", syscall.EINVAL)
	r.Message(d, "invalidate_cblocks 7-7", "", syscall.EINVAL)
	r.Message(d, "invalidate_cblocks 0-200 200-256", "", 0)
	if s := status(r, d); s.Resident != 0 {
		t.Errorf("%+v", s)
	}
	r.Swap(d, writeback)
	r.Want(d, 8, 8, 8, 2)
	r.Write(d, 0, bs, 3)
	r.Suspend(d, false)
	specs, err := dm.ParseTable(around)
	r.Must(err)
	if err := d.Load(specs, dm.Mode{Write: true}); dm.ErrnoOf(err) != syscall.EBUSY {
		t.Errorf("passthrough with a dirty block: %v", err)
	}
	r.Resume(d)
	r.Want(d, 0, bs, 0, 3)
}

// TestPromotion: what is read again and again comes into the cache, and what is not goes
// out of a full one.
func TestPromotion(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", writeback)
	for b := range uint64(200) {
		r.Write(d, b*bs, 8, b+1)
	}
	for range 100 {
		r.Want(d, 0, 8, 0, 1)
	}
	s := status(r, d)
	if s.Promotions != 1 || s.ReadHits == 0 || s.Dirty != 0 {
		t.Errorf("%+v", s)
	}
	r.WantDisk("b", 255*bs, 8, 0, 1)
}

// TestDemotion: a cache of four blocks has room for others once those in it are clean.
func TestDemotion(t *testing.T) {
	r := targettest.New(t, types, func(l *blk.Limits) {})
	d := r.Device("x", "0 16384 cache a b c 4096 1 writeback smq 0")
	for b := range uint64(3) {
		r.Write(d, b*4096, 4096, b+1)
	}
	for range 300 {
		r.Want(d, 3*4096, 8, 3*4096, 0)
	}
	wait(r, 70*time.Second)
	r.Write(d, 3*4096, 4096, 4)
	for i := range uint64(4) {
		r.Want(d, i*4096, 4096, i*4096, i+1)
	}
	s := status(r, d)
	if s.Blocks != 4 {
		t.Errorf("%+v", s)
	}
}

// TestReload: a new table finds what the old one has left, with the policy's hints.
func TestReload(t *testing.T) {
	for _, table := range []string{writeback, "0 16384 cache a b c 64 0 smq 0"} {
		r := targettest.New(t, types)
		d := r.Device("x", table)
		r.Write(d, 0, bs, 1)
		r.Write(d, 640, bs, 2)
		r.Do(d, blk.Discard, 1280, 128, 0, blk.OK)
		r.Suspend(d, false)
		r.Swap(d, table)
		s := status(r, d)
		if s.Resident != 2 || s.Dirty != 2 || s.WriteMisses != 0 {
			t.Errorf("%+v", s)
		}
		r.Must(d.Close())
		d = r.Device("y", table)
		r.Want(d, 0, bs, 0, 1)
		r.Want(d, 640, bs, 640, 2)
		if s := status(r, d); s.Resident != 2 || s.Dirty != 2 || s.ReadHits != 2 {
			t.Errorf("%+v", s)
		}
		r.Write(d, 1288, 8, 5) // in a discarded block
		if s := status(r, d); s.Resident != 3 {
			t.Errorf("the discards are forgotten: %+v", s)
		}
		r.Want(d, 1288, 8, 1288, 5)
	}
}

// TestOriginShrinks: a table that is shorter forgets the blocks beyond its end, and is
// refused while one of them is dirty. One that is longer finds what the origin has.
func TestOriginShrinks(t *testing.T) {
	const short = "0 8200 cache a b c 64 2 metadata2 writeback smq 0"
	r := targettest.New(t, types)
	d := r.Device("x", writeback)
	r.Write(d, 0, bs, 1)
	r.Write(d, 8192, bs, 2) // of the short table's last part of a block
	r.Write(d, 16320, bs, 3)
	r.Suspend(d, false)
	specs, err := dm.ParseTable(short)
	r.Must(err)
	r.Must(d.Load(specs, dm.Mode{Write: true}))
	if err := d.Resume(context.Background(), false); dm.ErrnoOf(err) != syscall.EFBIG {
		t.Errorf("a dirty block is beyond the end: %v", err)
	}
	r.Swap(d, writeback)
	wait(r, 5*time.Second)
	r.Swap(d, short)
	if s := status(r, d); s.Resident != 1 || s.Dirty != 0 {
		t.Errorf("%+v", s)
	}
	r.Want(d, 0, bs, 0, 1)
	r.Want(d, 8192, 8, 8192, 2)
	r.Suspend(d, false) // saves the discards of a device of this size
	if s, err := cachemeta.ReadSuper(r.Sim, r.Disk("a")); err != nil || s.DiscardBlocks != 129 {
		t.Errorf("%d discard blocks, %v", s.DiscardBlocks, err)
	}
	r.Must(d.Close())
	d = r.Device("y", writeback)
	if s := status(r, d); s.Resident != 1 {
		t.Errorf("blocks beyond the end came back: %+v", s)
	}
	r.Want(d, 16320, bs, 16320, 3)
}

func TestLines(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 16384 cache a b c 128 2 METADATA2 writethrough mq 4 migration_threshold 5 random_threshold 7 rest")
	r.Lines(d, dm.TableText, "0 16384 cache 7:0 7:1 7:2 128 2 METADATA2 writethrough mq 4 migration_threshold 5 random_threshold 7 rest")
	r.Lines(d, dm.Info, "0 16384 cache 8 9/2048 128 0/128 0 0 0 0 0 0 0 2 metadata2 writethrough 2 migration_threshold 5 mq 10 random_threshold 0 sequential_threshold 0 discard_promote_adjustment 0 read_promote_adjustment 0 write_promote_adjustment 0 rw - ")
	r.Message(d, "migration_threshold 9", "", 0)
	r.Message(d, "Sequential_Threshold 9", "", 0)
	r.Message(d, "sequential_threshold x", "", syscall.EINVAL)
	r.Message(d, "size 9", "", syscall.EINVAL)
	r.Message(d, "size", "", syscall.EINVAL)
	if s := status(r, d); s.MigrationThreshold != 9 {
		t.Errorf("%+v", s)
	}
	r.Must(d.Close())
	r.Refuses(`
		0 64 cache => EINVAL Insufficient args
		0 64 cache a b => EINVAL Insufficient args
		0 64 cache a b c => EINVAL Insufficient args
		0 64 cache a nothing c 64 0 smq 0 => ENODEV Error opening cache device
		0 16385 cache a b c 64 0 smq 0 => EINVAL Device size larger than cached device
		0 64 cache a b c 63 0 smq 0 => EINVAL Invalid data block size
		0 64 cache a b c 4194304 0 smq 0 => EINVAL Invalid data block size
		0 64 cache a b c 32768 0 smq 0 => EINVAL Data block size is larger than the cache device
		0 64 cache a b c 128 4 smq 0 => EINVAL Invalid number of cache feature arguments
		0 64 cache a b c 128 1 fast smq 0 => EINVAL Unrecognised cache feature requested
		0 64 cache a b c 128 2 writeback passthrough smq 0 => EINVAL Duplicate cache io_mode features requested
		0 64 cache a b c 128 0 => EINVAL Insufficient args
		0 64 cache a b c 128 0 smq => EINVAL Invalid number of policy arguments
		0 64 cache a b c 128 0 smq 1 x => EINVAL Error setting cache policy's config values
	`)
}

// TestSuite runs the conformance suite of devices, with power cuts.
func TestSuite(t *testing.T) {
	for name, table := range map[string]string{"writeback": writeback, "writethrough": through, "passthrough": around, "version1": "0 16384 cache a b c 512 0 smq 0"} {
		t.Run(name, func(t *testing.T) { targettest.Conforms(t, blktest.Suite{}, types, table) })
	}
}
