package filedev

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
)

func write(t *testing.T, d blk.Device, sector, n uint64) {
	t.Helper()
	if err := blk.WriteSectors(e, d, blktest.Pattern(sector, n, 1), sector, 0); err != nil {
		t.Fatal(err)
	}
}

func used(t *testing.T, d *Device) int64 {
	t.Helper()
	if err := blk.FlushDevice(e, d); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(d.path)
	if err != nil {
		t.Fatal(err)
	}
	return st.Sys().(*syscall.Stat_t).Blocks
}

func TestDiscardAndZeroesFreeTheBlocks(t *testing.T) {
	d := open(t, newFile(t), Options{})
	defer d.Close()
	if n := used(t, d); n > 8 {
		t.Fatalf("a new file uses %d sectors", n)
	}
	write(t, d, 0, 4096)
	full := used(t, d)
	if full < 4096 {
		t.Fatalf("%d sectors used after writing 4096", full)
	}
	if err := blk.DiscardSectors(e, d, 0, 1024); err != nil {
		t.Fatal(err)
	}
	if n := used(t, d); n > full-1024 {
		t.Errorf("discard left %d of %d", n, full)
	}
	if err := blk.ZeroSectors(e, d, 1024, 1024); err != nil {
		t.Fatal(err)
	}
	if n := used(t, d); n > full-2048 {
		t.Errorf("zeroes left %d of %d", n, full)
	}
	if st := blk.Do(e, d, &blk.Bio{Op: blk.WriteZeroes, Sectors: 2048, Flags: blk.NoUnmap}); st != blk.OK {
		t.Fatal(st)
	}
	if n := used(t, d); n < 4096 {
		t.Errorf("zeroes with NoUnmap use %d sectors", n)
	}
}

func TestExtentsAreTheFilesHoles(t *testing.T) {
	d := open(t, newFile(t), Options{})
	defer d.Close()
	write(t, d, 1024, 128)
	write(t, d, 4096, 4096)
	x := func(s, n uint64, data bool) blk.Extent { return blk.Extent{Sector: s, Sectors: n, Data: data} }
	for _, c := range []struct {
		at, n uint64
		want  []blk.Extent
	}{
		{0, 8192, []blk.Extent{x(0, 1024, false), x(1024, 128, true), x(1152, 2944, false), x(4096, 4096, true)}},
		{1030, 10, []blk.Extent{x(1030, 10, true)}},
		{1140, 20, []blk.Extent{x(1140, 12, true), x(1152, 8, false)}},
		{2000, 100, []blk.Extent{x(2000, 100, false)}},
	} {
		if got, err := d.Extents(c.at, c.n); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%d+%d: %v, %v", c.at, c.n, got, err)
		}
	}
}

func TestCachedReadsEndOnTheSubmittersStack(t *testing.T) {
	d := open(t, newFile(t), Options{})
	defer d.Close()
	write(t, d, 0, 64)
	ended := false
	b := &blk.Bio{End: func(*blk.Bio) { ended = true }}
	b.SetData(make([]byte, 64*512))
	d.Submit(b)
	if !ended || d.noTry.Load() {
		t.Fatal("a read of cached pages went to the pool")
	}
	if err := blktest.Check(b.Bufs[0], 0, 1); err != nil {
		t.Fatal(err)
	}
}

// The environment may name a scratch block device; the test destroys its content.
func TestBlockDevice(t *testing.T) {
	path := os.Getenv("FILEDEV_TEST_BLOCK_DEVICE")
	if path == "" {
		if _, err := Open("/dev/null", Options{}); err == nil {
			t.Error("a character device opens")
		}
		return
	}
	for _, o := range []Options{{}, {Direct: true}} {
		blktest.TestDevice(t, func(t *testing.T) blk.Device { return open(t, path, o) })
	}
	d := open(t, path, Options{})
	defer d.Close()
	t.Logf("%+v", d.Limits())
	if _, err := Open(path, Options{}); err == nil {
		t.Error("opens twice")
	}
}

// On a file system in memory a bio has ended when Submit returns.
func TestInlineInMemory(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "filedev")
	if err != nil {
		t.Logf("no file system in memory here: %v", err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "disk")
	if err := Create(path, 64); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, op := range []blk.Op{blk.Write, blk.Read, blk.Flush, blk.Discard, blk.WriteZeroes} {
		ended := false
		b := &blk.Bio{Op: op, Sectors: 8, End: func(b *blk.Bio) { ended = b.Status() == blk.OK }}
		if op.HasData() {
			b.SetData(make([]byte, 4096))
		}
		d.Submit(b)
		if !ended {
			t.Errorf("%v was not done inline", op)
		}
	}
}
