package thintools_test

import (
	"bufio"
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
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

var big = flag.Uint64("big", 100000, "mappings of the big pool")

// bigXML is a pool with one device whose neighbouring blocks lie far apart.
func bigXML(n uint64) io.Reader {
	r, w := io.Pipe()
	go func() {
		b := bufio.NewWriter(w)
		fmt.Fprintf(b, `<superblock uuid="" time="0" transaction="0" flags="0" version="2" data_block_size="128" nr_data_blocks="%d">`, 2*n)
		fmt.Fprintf(b, `<device dev_id="1" mapped_blocks="%d" transaction="0" creation_time="0" snap_time="0">`, n)
		for k := range n {
			fmt.Fprintf(b, "<single_mapping origin_block=\"%d\" data_block=\"%d\" time=\"0\"/>\n", k, scatter(k, n))
		}
		fmt.Fprint(b, "</device></superblock>")
		w.CloseWithError(b.Flush())
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
	ok(t, thintools.Restore(env.Real(), bigXML(*big), dev, thintools.RestoreOptions{}))
	t.Logf("restored %d mappings in %v", *big, time.Since(start))

	start = time.Now()
	m := must(thinmeta.Open(env.Real(), dev, thinmeta.Options{}))
	th := must(m.OpenThin(1))
	t.Logf("opened in %v", time.Since(start))
	rng := rand.New(rand.NewPCG(1, 1))
	start = time.Now()
	finds := metatest.Scaled(200000)
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
		t.Logf("%d MiB of memory in use", used>>20)
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
	r := must(thintools.Check(env.Real(), dev, thintools.CheckOptions{}))
	ok(t, r.Err())
	t.Logf("checked in %v", time.Since(start))
	toolOnFile(t, file)
	start = time.Now()
	n := &counter{}
	ok(t, thintools.Dump(env.Real(), dev, n, thintools.DumpOptions{}))
	t.Logf("dumped %d MB in %v", n.n>>20, time.Since(start))
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

func toolOnFile(t *testing.T, file string) {
	start := time.Now()
	if out, err := metatest.ThinCheck(file); err != nil {
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
	p := metatest.New(t, 4096, 20000, 0)
	for id := range uint32(1000) {
		p.CreateThin(id)
	}
	p.Commit()
	for id := uint32(0); id < 1000; id++ {
		if id > 0 {
			p.CreateSnap(1<<24-id, sourceOf(id))
		}
		th := p.Thin(sourceOf(id + 1))
		ok(t, p.Insert(th, uint64(id%50)))
		th.Close()
		if id%100 == 0 {
			p.Commit()
		}
	}
	p.Commit()
	metatest.Tool(t, p.Dev, "thin_check")
	same(t, "thin_dump", dump(t, p.Dev, thintools.DumpOptions{}), metatest.Tool(t, p.Dev, "thin_dump"))
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
	p := metatest.New(t, 1024, 2*n, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	for k := range uint64(n) {
		ok(t, p.Insert(th, k))
	}
	p.CreateSnap(2, 1)
	for k := range uint64(n) {
		ok(t, p.Insert(th, k))
	}
	p.Commit()
	if p.M.FreeData() != 0 {
		t.Fatalf("%d blocks free", p.M.FreeData())
	}
}

func TestXMLEmitterTellsOfErrors(t *testing.T) {
	bad := fmt.Errorf("no room")
	err := thintools.Dump(env.Real(), busyPool(t, 3, 300).Dev, failWriter{bad}, thintools.DumpOptions{})
	if err == nil || !strings.Contains(err.Error(), "no room") {
		t.Fatal(err)
	}
}

type failWriter struct{ err error }

func (f failWriter) Write([]byte) (int, error) { return 0, f.err }

var _ blk.Device = (*filedev.Device)(nil)
