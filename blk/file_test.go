package blk_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/faultdev"
	"udm/blk/memdev"
	"udm/env"
)

func blocks(size uint32) memdev.Option {
	return memdev.Tune(func(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock, l.MinIO, l.MaxSectors = size, size, size, 24 })
}

func TestFileReadsAndWritesAnyBytes(t *testing.T) {
	const size = 64 << 10
	for _, block := range []uint32{512, 4096} {
		f := blk.NewFile(env.Real(), memdev.New(size/512, blocks(block)))
		want, rng := make([]byte, size), rand.New(rand.NewPCG(1, uint64(block)))
		for i := range 400 {
			off := rng.IntN(size)
			n := rng.IntN(min(size-off, 20000) + 1)
			for j := range n {
				want[off+j] = byte(i)
			}
			if m, err := f.WriteAt(want[off:off+n], int64(off)); m != n || err != nil {
				t.Fatalf("write %d+%d: %d, %v", off, n, m, err)
			}
		}
		if err := iotest.TestReader(io.NewSectionReader(f, 0, f.Size()), want); err != nil {
			t.Errorf("block %d: %v", block, err)
		}
		if err := f.Sync(); err != nil {
			t.Error(err)
		}
	}
}

func TestFileEnds(t *testing.T) {
	f := blk.NewFile(env.Real(), memdev.New(2))
	p := bytes.Repeat([]byte{1}, 100)
	for _, c := range []struct {
		off        int64
		n          int
		rerr, werr error
	}{
		{924, 100, nil, nil},
		{1000, 24, io.EOF, io.ErrShortWrite},
		{1024, 0, io.EOF, io.ErrShortWrite},
		{1 << 62, 0, io.EOF, io.ErrShortWrite},
		{-1, 0, blk.Invalid, blk.Invalid},
	} {
		if n, err := f.WriteAt(p, c.off); n != c.n || !errors.Is(err, c.werr) {
			t.Errorf("write at %d: %d, %v", c.off, n, err)
		}
		if n, err := f.ReadAt(make([]byte, 100), c.off); n != c.n || !errors.Is(err, c.rerr) {
			t.Errorf("read at %d: %d, %v", c.off, n, err)
		}
	}
}

// Neighbours that share blocks, written at the same time, keep their bytes. The
// device takes its time, so that the read of one comes before the write of the
// other when nothing prevents it.
func TestWritesToOneBlockTakeTurns(t *testing.T) {
	for seed := range uint64(20) {
		s := env.NewSim(seed)
		d := faultdev.New(s, memdev.New(8), seed)
		d.SetRules(faultdev.Rule{Percent: 50, Delay: 10})
		f := blk.NewFile(s, d)
		const users, each = 8, 300
		left := users
		for i := range users {
			s.Go("user", func() {
				if _, err := f.WriteAt(bytes.Repeat([]byte{byte(i + 1)}, each), int64(i*each)); err != nil {
					t.Error(err)
				}
				left--
			})
		}
		s.NewWait().Until(func() bool { return left == 0 })
		got := make([]byte, users*each)
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		for i, b := range got {
			if b != byte(i/each+1) {
				t.Fatalf("seed %d: byte %d is %d", seed, i, b)
			}
		}
	}
}

func TestFileAmongGoroutines(t *testing.T) {
	f := blk.NewFile(env.Real(), memdev.New(64))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() { f.WriteAt(bytes.Repeat([]byte{byte(i)}, 301), int64(i*301)) })
	}
	wg.Wait()
	got := make([]byte, 100*301)
	f.ReadAt(got, 0)
	for i, b := range got {
		if b != byte(i/301) {
			t.Fatalf("byte %d is %d", i, b)
		}
	}
}

func TestFileErrorsTellTheByte(t *testing.T) {
	d := faultdev.New(env.Real(), memdev.New(64), 1)
	d.SetRules(faultdev.Rule{Sector: 30, Sectors: 1, Status: blk.IOErr})
	n, err := blk.NewFile(env.Real(), d).ReadAt(make([]byte, 20000), 100)
	if n != 412 || !errors.Is(err, blk.IOErr) || err.Error() != "fault:mem:32768: byte 512: I/O error" {
		t.Errorf("%d, %v", n, err)
	}
}

func TestSub(t *testing.T) {
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		d, err := blk.Sub(memdev.New(10000), 1000, 8000)
		if err != nil {
			t.Fatal(err)
		}
		return d
	})
}

func TestSubPassesExtents(t *testing.T) {
	blktest.PassesExtents(t, func(d blk.Device) blk.Device {
		s, err := blk.Sub(d, 0, 64)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

func TestSubTouchesItsPartOnly(t *testing.T) {
	e, m := env.Real(), memdev.New(100)
	d, err := blk.Sub(m, 10, 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := blk.WriteSectors(e, d, blktest.Pattern(10, 20, 1), 0, 0); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100*512)
	blk.ReadSectors(e, m, p, 0)
	if blktest.Check(p[10*512:30*512], 10, 1) != nil || blktest.Check(p[:10*512], 0, 0) != nil || blktest.Check(p[30*512:], 30, 0) != nil {
		t.Error("wrong sectors written")
	}
	for _, r := range [][2]uint64{{20, 1}, {19, 2}, {1<<64 - 1, 1}} {
		if st := blk.Do(e, d, &blk.Bio{Op: blk.Discard, Sector: r[0], Sectors: r[1]}); st != blk.Invalid {
			t.Errorf("%v: %v", r, st)
		}
	}
	if d.String() != "mem:51200[10+20]" || d.Close() != nil {
		t.Error(d)
	}
}

func TestSubLimits(t *testing.T) {
	m := memdev.New(800, memdev.Tune(func(l *blk.Limits) {
		l.LogicalBlock, l.PhysicalBlock, l.MinIO, l.OptIO = 1024, 4096, 4096, 65536
	}))
	for _, c := range []struct {
		start, sectors uint64
		physical, opt  uint32 // 0: refused
	}{
		{128, 128, 4096, 65536},
		{8, 128, 4096, 0},
		{2, 128, 1024, 0},
		{1, 128, 0, 0},
		{2, 127, 0, 0},
		{796, 6, 0, 0},
		{2, 1<<64 - 2, 0, 0},
	} {
		d, err := blk.Sub(m, c.start, c.sectors)
		if (err != nil) != (c.physical == 0) {
			t.Errorf("%d+%d: %v", c.start, c.sectors, err)
		}
		if err != nil {
			continue
		}
		if l := d.Limits(); l.PhysicalBlock != c.physical || l.OptIO != c.opt || l.Size != c.sectors {
			t.Errorf("%d+%d: %+v", c.start, c.sectors, l)
		}
	}
}

func TestAppendExtent(t *testing.T) {
	var l []blk.Extent
	for _, e := range []blk.Extent{{0, 5, true}, {5, 0, false}, {5, 5, true}, {10, 1, false}} {
		l = blk.AppendExtent(l, e)
	}
	if len(l) != 2 || l[0] != (blk.Extent{Sectors: 10, Data: true}) || l[1] != (blk.Extent{Sector: 10, Sectors: 1}) {
		t.Error(l)
	}
}
