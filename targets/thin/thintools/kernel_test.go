package thintools_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"udm/blk/memdev"
	"udm/env"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

// kernelImage is metadata made by the kernel, with the script of the same name in
// testdata.
func kernelImage(t testing.TB, name string) *memdev.Device {
	t.Helper()
	f := must(os.Open("testdata/" + name + ".img.gz"))
	defer f.Close()
	return metatest.Load(t, must(io.ReadAll(must(gzip.NewReader(f)))))
}

// TestKernelImage reads the kernel's metadata, agrees with its status line and
// with thin_dump, restores it, and goes on working with it.
func TestKernelImage(t *testing.T) {
	dev := kernelImage(t, "kernel")
	r := must(thintools.Check(env.Real(), guarded{dev, t}, thintools.CheckOptions{}))
	ok(t, r.Err())
	want := string(must(os.ReadFile("testdata/kernel.xml")))
	same(t, "dump", dump(t, guarded{dev, t}, thintools.DumpOptions{}), want)

	m := must(thinmeta.Open(env.Real(), dev, thinmeta.Options{DataBlockSize: 128}))
	status := fmt.Sprintf("thin-pool %d %d/%d %d/%d %d ", m.TransactionID(), m.MetadataBlocks()-m.FreeMetadata(),
		m.MetadataBlocks(), m.DataBlocks()-m.FreeData(), m.DataBlocks(), m.HeldRoot())
	if line := string(must(os.ReadFile("testdata/kernel.status"))); !strings.Contains(line, status) {
		t.Errorf("status is %q, the kernel's %q", status, line)
	}
	ok(t, m.ReleaseSnap())
	ok(t, m.Close())
	metatest.Tool(t, dev, "thin_check")
	same(t, "dump without metadata snapshot", dump(t, dev, thintools.DumpOptions{}), want)

	restored := metatest.Disk(256)
	ok(t, thintools.Restore(env.Real(), strings.NewReader(want), restored, thintools.RestoreOptions{}))
	same(t, "dump of the restored", dump(t, restored, thintools.DumpOptions{}), want)
	useKernelImage(t, dev, r)
}

// TestFreshEqualsKernel does what fresh.sh does: every block must be the kernel's,
// byte for byte. The kernel leaves what was in memory in the 96 unused bytes of
// each space map root in the superblock, which its checksum covers.
func TestFreshEqualsKernel(t *testing.T) {
	kernel, ours := kernelImage(t, "fresh"), metatest.Disk(2048)
	m := must(thinmeta.Open(env.Real(), ours, thinmeta.Options{DataBlockSize: 128, Format: true}))
	for _, op := range []func() error{
		func() error { return m.ResizeData(512) },
		func() error { return m.CreateThin(1) },
		func() error { return m.CreateSnap(2, 1) },
	} {
		ok(t, op())
		ok(t, m.Commit())
	}
	ok(t, m.Close())
	for nr := range uint64(2048) {
		a, b := readBlock(t, ours, nr), readBlock(t, kernel, nr)
		if nr == thinmeta.SuperBlock {
			for _, p := range [][]byte{a, b} {
				clear(p[:4])
				clear(p[64+32 : 192])
				clear(p[192+32 : 320])
			}
		}
		if !bytes.Equal(a, b) {
			t.Errorf("block %d is not the kernel's", nr)
		}
	}
}

// useKernelImage makes random changes and checks them.
func useKernelImage(t *testing.T, dev *memdev.Device, r *thintools.Report) {
	p := &metatest.Pool{T: t, Dev: dev, Now: metatest.State{Devs: map[uint32]map[uint64]uint64{}, Size: r.Super.Data.Blocks}}
	p.Open()
	for id := range r.Devices {
		p.Now.Devs[id] = must(metatest.Mappings(p.M, id))
	}
	p.Old = p.Now.Clone()
	rng := rand.New(rand.NewPCG(4, 4))
	next := uint64(0)
	for i := range 1000 {
		p.Step(rng, &next, i)
	}
	p.Commit()
	metatest.Verify(t, dev, p.Now)
	metatest.Tool(t, dev, "thin_check")
}

// TestKernelCreditsFreedBlocksAtOnce: the status line counts blocks as free that
// AllocDataBlock will not give out before the next commit.
func TestKernelCreditsFreedBlocksAtOnce(t *testing.T) {
	p := metatest.New(t, 1024, 50, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	for k := range uint64(50) {
		ok(t, p.Insert(th, k))
	}
	p.Commit()
	ok(t, th.RemoveRange(0, 7))
	for k := range uint64(7) {
		delete(p.Now.Devs[1], k)
	}
	if p.M.FreeData() != 7 {
		t.Errorf("%d blocks free within the transaction, the kernel's 6.1 says 7", p.M.FreeData())
	}
}

func TestEmptyDiskIsNoPool(t *testing.T) {
	r := must(thintools.Check(env.Real(), metatest.Disk(100), thintools.CheckOptions{}))
	if r.Fatal == 0 {
		t.Error("an empty disk passes the check")
	}
	err := thintools.Dump(env.Real(), metatest.Disk(100), io.Discard, thintools.DumpOptions{})
	if err == nil || !strings.Contains(err.Error(), "block 0") {
		t.Errorf("dump of an empty disk: %v", err)
	}
	if err := thintools.Restore(env.Real(), bytes.NewReader(nil), metatest.Disk(1), thintools.RestoreOptions{}); err == nil {
		t.Error("restored to a disk of one block")
	}
}
