package thinmeta

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/filedev"
	"udm/env"
	"udm/pdata"
)

var big = flag.Uint64("big", 100000, "mappings of the big pool")

// bigXML is a pool with one device whose neighbouring blocks lie far apart.
func bigXML(n uint64) io.Reader {
	r, w := io.Pipe()
	go func() {
		x := &xmlEmitter{newText(w)}
		_ = x.begin(Header{Version: 2, DataBlockSize: 128, DataBlocks: 2 * n})
		_ = x.device(1, Details{Mapped: n})
		for k := range n {
			_ = x.run(Run{Thin: k, Data: scatter(k, n), Len: 1})
		}
		_ = x.endDevice()
		w.CloseWithError(x.end())
	}()
	return r
}

// scatter is a data block for each thin block, one to one, for n not divisible
// by 7919.
func scatter(k, n uint64) uint64 { return k * 7919 % n }

// TestBigPool restores, opens, reads and snapshots a pool of many mappings. By
// hand: -big 16777215 (1 TiB in blocks of 64 KiB).
func TestBigPool(t *testing.T) {
	file := filepath.Join(t.TempDir(), "metadata")
	blocks := *big/126 + *big/4000 + 1000
	ok(t, filedev.Create(file, blocks*pdata.BlockSectors))
	dev := must(filedev.Open(file, filedev.Options{}))
	defer dev.Close()
	base := heap()
	start := time.Now()
	ok(t, Restore(env.Real(), bigXML(*big), dev, RestoreOptions{}))
	t.Logf("restored %d mappings in %v", *big, time.Since(start))

	start = time.Now()
	m := must(Open(env.Real(), dev, Options{}))
	th := must(m.OpenThin(1))
	t.Logf("opened in %v", time.Since(start))
	rng := rand.New(rand.NewPCG(1, 1))
	start = time.Now()
	finds := scaled(200000)
	for range finds {
		k := rng.Uint64N(*big)
		if got := must(th.Find(k)); got.Block != scatter(k, *big) {
			t.Fatalf("block %d is at %d", k, got.Block)
		}
	}
	t.Logf("%d random look-ups, %v each", finds, time.Since(start)/time.Duration(finds))
	if used := heap() - base; used > pdata.DefaultCache+(100<<20) {
		t.Errorf("%d MiB of memory in use", used>>20)
	} else {
		t.Logf("%d MiB of memory in use, %d pages cached", used>>20, m.bm.Cached())
	}
	start = time.Now()
	ok(t, m.CreateSnap(2, 1))
	ok(t, m.Commit())
	t.Logf("snapshot and commit in %v", time.Since(start))
	start = time.Now()
	const writes = 2000
	for range writes {
		ok(t, th.Insert(rng.Uint64N(*big), must(m.AllocDataBlock())))
	}
	ok(t, m.Commit())
	t.Logf("%d blocks unshared and committed in %v", writes, time.Since(start))
	start = time.Now()
	th.Close()
	ok(t, m.DeleteThin(2))
	ok(t, m.Close())
	t.Logf("snapshot deleted in %v", time.Since(start))
	start = time.Now()
	r := must(Check(env.Real(), dev, CheckOptions{}))
	ok(t, r.Err())
	t.Logf("checked in %v", time.Since(start))
	toolOnFile(t, file)
	start = time.Now()
	n := &counter{}
	ok(t, Dump(env.Real(), dev, n, DumpOptions{}))
	t.Logf("dumped %d MB in %v", n.n>>20, time.Since(start))
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

func toolOnFile(t *testing.T, file string) {
	start := time.Now()
	if out, err := thinCheck(file); err != nil {
		t.Fatalf("thin_check: %v\n%s", err, out)
	}
	t.Logf("thin_check in %v", time.Since(start))
}

// heap is the memory that the program has from the system, less what it gave
// back.
func heap() int64 {
	debug.FreeOSMemory()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.Sys - s.HeapReleased)
}

// TestThousandSnapshots: 1,000 thins, and 1,000 snapshots of snapshots.
func TestThousandSnapshots(t *testing.T) {
	p := newPool(t, 4096, 20000, 0)
	for id := range uint32(1000) {
		p.createThin(id)
	}
	p.commit()
	for id := uint32(0); id < 1000; id++ {
		if id > 0 {
			p.createSnap(1<<24-id, sourceOf(id))
		}
		th := p.thin(sourceOf(id + 1))
		ok(t, p.insert(th, uint64(id%50)))
		th.Close()
		if id%100 == 0 {
			p.commit()
		}
	}
	p.commit()
	tool(t, p.dev, "thin_check")
	same(t, "thin_dump", dump(t, p.dev, DumpOptions{}), tool(t, p.dev, "thin_dump"))
}

// sourceOf is the device that snapshot n, from 1 on, is taken of: the one before.
func sourceOf(n uint32) uint32 {
	if n <= 1 {
		return 0
	}
	return 1<<24 - (n - 1)
}

// TestOverwriteUsesTwice: written, snapshotted, written again is 2N blocks.
func TestOverwriteUsesTwice(t *testing.T) {
	const n = 500
	p := newPool(t, 1024, 2*n, 0)
	p.createThin(1)
	th := p.thin(1)
	defer th.Close()
	for k := range uint64(n) {
		ok(t, p.insert(th, k))
	}
	p.createSnap(2, 1)
	for k := range uint64(n) {
		ok(t, p.insert(th, k))
	}
	p.commit()
	if p.m.FreeData() != 0 {
		t.Fatalf("%d blocks free", p.m.FreeData())
	}
}

func TestXMLEmitterTellsOfErrors(t *testing.T) {
	bad := fmt.Errorf("no room")
	err := Dump(env.Real(), busyPool(t, 3, 300).dev, failWriter{bad}, DumpOptions{})
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Fatal(err)
	}
}

type failWriter struct{ err error }

func (f failWriter) Write([]byte) (int, error) { return 0, f.err }

var _ blk.Device = (*filedev.Device)(nil)
