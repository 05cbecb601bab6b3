package memdev_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

var e = env.Real()

func write(t testing.TB, d blk.Device, sector uint64, p []byte, f blk.Flags) {
	t.Helper()
	if err := blk.WriteSectors(e, d, p, sector, f); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, d blk.Device, sector uint64, n int) []byte {
	t.Helper()
	p := bytes.Repeat([]byte{0xee}, n*512)
	if err := blk.ReadSectors(e, d, p, sector); err != nil {
		t.Fatal(err)
	}
	return p
}

func fill(b byte, sectors int) []byte { return bytes.Repeat([]byte{b}, sectors*512) }

func TestAbsentReadsAsZeroes(t *testing.T) {
	d := memdev.New(1 << 40)
	far := uint64(1<<40 - 300)
	write(t, d, far, fill(1, 200), 0)
	for s, want := range map[uint64][]byte{0: fill(0, 8), far - 8: append(fill(0, 8), fill(1, 8)...), far + 192: append(fill(1, 8), fill(0, 8)...)} {
		if got := read(t, d, s, len(want)/512); !bytes.Equal(got, want) {
			t.Fatalf("sector %d differs", s)
		}
	}
}

func TestOutOfRangeIsInvalid(t *testing.T) {
	d := memdev.New(100)
	for _, r := range [][2]uint64{{100, 1}, {99, 2}, {math.MaxUint64, 8}, {8, math.MaxUint64}} {
		for _, op := range []blk.Op{blk.Discard, blk.WriteZeroes} {
			if st := blk.Do(e, d, &blk.Bio{Op: op, Sector: r[0], Sectors: r[1]}); st != blk.Invalid {
				t.Fatalf("%v %v: %v", op, r, st)
			}
		}
	}
}

func TestExtentsAreThePages(t *testing.T) {
	d := memdev.New(10 * 128)
	write(t, d, 2*128+5, fill(1, 1), 0)
	write(t, d, 3*128, fill(1, 128), 0)
	write(t, d, 9*128, fill(1, 1), 0)
	check := func(from, n uint64, want ...blk.Extent) {
		t.Helper()
		if got, _ := d.Extents(from, n); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	x := func(s, n uint64, data bool) blk.Extent { return blk.Extent{Sector: s, Sectors: n, Data: data} }
	check(0, 1280, x(0, 256, false), x(256, 256, true), x(512, 640, false), x(1152, 128, true))
	check(300, 10, x(300, 10, true))
	check(0, 257, x(0, 256, false), x(256, 1, true))
	if err := blk.DiscardSectors(e, d, 250, 200); err != nil {
		t.Fatal(err)
	}
	check(0, 1280, x(0, 384, false), x(384, 128, true), x(512, 640, false), x(1152, 128, true))
	if got := read(t, d, 384, 128); !bytes.Equal(got, append(fill(0, 66), fill(1, 62)...)) {
		t.Fatal("partly discarded page has the wrong content")
	}
}

func TestNoUnmapKeepsThePage(t *testing.T) {
	d := memdev.New(128)
	write(t, d, 0, fill(1, 128), 0)
	blk.Do(e, d, &blk.Bio{Op: blk.WriteZeroes, Sectors: 128, Flags: blk.NoUnmap})
	if x, _ := d.Extents(0, 128); !x[0].Data {
		t.Fatal("page dropped")
	}
	if !bytes.Equal(read(t, d, 0, 128), fill(0, 128)) {
		t.Fatal("not zero")
	}
}

func TestResizeCutsAndGrows(t *testing.T) {
	d := memdev.New(300, memdev.Volatile)
	write(t, d, 0, fill(1, 300), 0)
	d.Resize(100)
	if d.Limits().Size != 100 || d.Dirty() != 100 {
		t.Fatalf("size %d, dirty %d", d.Limits().Size, d.Dirty())
	}
	d.Resize(400)
	if !bytes.Equal(read(t, d, 0, 400), append(fill(1, 100), fill(0, 300)...)) {
		t.Fatal("old content came back")
	}
}

func TestCloneSharesNothing(t *testing.T) {
	d := memdev.New(300)
	write(t, d, 7, fill(1, 200), 0)
	c := d.Clone()
	if d.Sum256() != c.Sum256() || d.Sum256() != sha256.Sum256(read(t, d, 0, 300)) {
		t.Fatal("sums differ")
	}
	write(t, c, 8, fill(2, 1), 0)
	if read(t, d, 8, 1)[0] != 1 {
		t.Fatal("write to the clone is seen in the original")
	}
}

func TestReadOnly(t *testing.T) {
	d := memdev.New(8)
	d.SetReadOnly(true)
	if err := blk.WriteSectors(e, d, fill(1, 1), 0, 0); err != blk.ReadOnly {
		t.Fatal(err)
	}
	read(t, d, 0, 1)
}

// Checks the possible contents of sectors 0 (overwritten twice), 1 (flushed), 2
// (FUA), 3 (discarded), 4 (flushed, then FUA over an unflushed write).
func TestCrashCloneDrawsEveryLegalDiskAndNoOther(t *testing.T) {
	d := memdev.New(128, memdev.Volatile)
	write(t, d, 0, fill(1, 5), 0)
	if err := blk.FlushDevice(e, d); err != nil {
		t.Fatal(err)
	}
	write(t, d, 0, fill(2, 1), 0)
	write(t, d, 0, fill(3, 1), 0)
	write(t, d, 2, fill(4, 1), blk.FUA)
	if err := blk.DiscardSectors(e, d, 3, 1); err != nil {
		t.Fatal(err)
	}
	write(t, d, 4, fill(5, 1), 0)
	write(t, d, 4, fill(6, 1), blk.FUA)

	seen := map[string]bool{}
	for seed := range uint64(2000) {
		seen[firstBytes(t, d.CrashClone(seed))] = true
		if a, b := firstBytes(t, d.CrashClone(seed)), firstBytes(t, d.CrashClone(seed)); a != b {
			t.Fatalf("seed %d gives two disks", seed)
		}
	}
	for _, s0 := range []int{1, 2, 3} {
		for _, s3 := range []int{0, 1} {
			k := fmt.Sprint(s0, 1, 4, s3, 6)
			if !seen[k] {
				t.Errorf("legal disk %q never drawn", k)
			}
			delete(seen, k)
		}
	}
	if len(seen) > 0 {
		t.Errorf("illegal disks drawn: %v", seen)
	}
	if got := firstBytes(t, d.CrashCloneNone()); got != "1 1 4 1 6" {
		t.Errorf("none survives: %s", got)
	}
	if got := firstBytes(t, d.CrashCloneAll()); got != "3 1 4 0 6" {
		t.Errorf("all survives: %s", got)
	}
	if got := firstBytes(t, d); got != "3 1 4 0 6" {
		t.Errorf("the original changed: %s", got)
	}
}

func firstBytes(t *testing.T, d blk.Device) string {
	p := read(t, d, 0, 5)
	return fmt.Sprint(p[0], p[512], p[1024], p[1536], p[2048])
}

func TestWithoutFUASupportTheFlagMakesNothingDurable(t *testing.T) {
	d := memdev.New(8, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.FUA = false }))
	write(t, d, 0, fill(1, 1), blk.FUA)
	if read(t, d.CrashCloneNone(), 0, 1)[0] != 0 {
		t.Fatal("durable")
	}
	write(t, d, 1, fill(1, 1), blk.Preflush)
	if read(t, d.CrashCloneNone(), 0, 1)[0] != 1 || d.Dirty() != 1 {
		t.Fatal("preflush did not flush what was before, or did too much")
	}
}

func TestManyVersionsAreBounded(t *testing.T) {
	d := memdev.New(8, memdev.Volatile)
	for i := range 100 {
		write(t, d, 0, fill(byte(i), 1), 0)
	}
	seen := map[byte]bool{}
	for seed := range uint64(500) {
		seen[read(t, d.CrashClone(seed), 0, 1)[0]] = true
	}
	if !seen[0] || !seen[99] || len(seen) < 3 || len(seen) > 9 {
		t.Fatalf("%v", seen)
	}
}

func TestConcurrentFirstWritesMakeOnePage(t *testing.T) {
	d := memdev.New(128 * 4)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for s := uint64(i); s < 512; s += 8 {
				write(t, d, s, fill(byte(s), 1), 0)
			}
		})
	}
	wg.Wait()
	for s := range uint64(512) {
		if read(t, d, s, 1)[0] != byte(s) {
			t.Fatalf("sector %d lost", s)
		}
	}
}

func TestSubmitDoesNotAllocate(t *testing.T) {
	d, p := memdev.New(1024), make([]byte, 4096)
	bufs := [][]byte{p[:512], p[512:700], p[700:]}
	b := &blk.Bio{End: func(*blk.Bio) {}}
	write(t, d, 0, p, 0)
	for _, op := range []blk.Op{blk.Read, blk.Write, blk.Flush} {
		n := testing.AllocsPerRun(100, func() {
			b.Rearm()
			b.Op = op
			b.SetBufs(bufs, 8)
			d.Submit(b)
		})
		if n != 0 {
			t.Errorf("%v: %v allocations", op, n)
		}
	}
}

func benchmark(b *testing.B, op blk.Op) {
	const span = 1 << 15 // sectors, 16 MiB
	d := memdev.New(span)
	write(b, d, 0, fill(1, span), 0)
	p := make([]byte, 4096)
	bio := &blk.Bio{Op: op, End: func(*blk.Bio) {}}
	b.SetBytes(4096)
	b.ReportAllocs()
	for s := uint64(0); b.Loop(); s = (s + 8*7919) % span {
		bio.Rearm()
		bio.Sector = s
		bio.SetData(p)
		d.Submit(bio)
	}
}

func BenchmarkRead4K(b *testing.B)  { benchmark(b, blk.Read) }
func BenchmarkWrite4K(b *testing.B) { benchmark(b, blk.Write) }

// BenchmarkCopy4K is the baseline for the others.
func BenchmarkCopy4K(b *testing.B) {
	const span = 16 << 20
	disk, p := bytes.Repeat([]byte{1}, span), make([]byte, 4096)
	b.SetBytes(4096)
	for s := 0; b.Loop(); s = (s + 4096*7919) % span {
		copy(p, disk[s:])
	}
}

// BenchmarkReadParallel4K shows whether readers of different pages interfere.
func BenchmarkReadParallel4K(b *testing.B) {
	const span = 1 << 15
	d := memdev.New(span)
	write(b, d, 0, fill(1, span), 0)
	var part atomic.Uint64
	b.SetBytes(4096)
	b.RunParallel(func(pb *testing.PB) {
		bio, p := &blk.Bio{End: func(*blk.Bio) {}}, make([]byte, 4096)
		for s := part.Add(1) * 4096 % span; pb.Next(); s = (s + 8*7919) % span {
			bio.Rearm()
			bio.Sector = s
			bio.SetData(p)
			d.Submit(bio)
		}
	})
}
