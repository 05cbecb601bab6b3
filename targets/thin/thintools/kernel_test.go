package thinmeta

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
)

// kernelImage is metadata made by the kernel, with the script of the same name in
// testdata.
func kernelImage(t testing.TB, name string) *memdev.Device {
	t.Helper()
	f := must(os.Open("testdata/" + name + ".img.gz"))
	defer f.Close()
	return load(t, must(io.ReadAll(must(gzip.NewReader(f)))))
}

// TestKernelImage reads the kernel's metadata, agrees with its status line and
// with thin_dump, restores it, and goes on working with it.
func TestKernelImage(t *testing.T) {
	dev := kernelImage(t, "kernel")
	r := must(Check(env.Real(), guarded{dev, t}, CheckOptions{}))
	ok(t, r.Err())
	want := string(must(os.ReadFile("testdata/kernel.xml")))
	same(t, "dump", dump(t, guarded{dev, t}, DumpOptions{}), want)

	m := must(Open(env.Real(), dev, Options{DataBlockSize: 128}))
	status := fmt.Sprintf("thin-pool %d %d/%d %d/%d %d ", m.TransactionID(), m.MetadataBlocks()-m.FreeMetadata(),
		m.MetadataBlocks(), m.DataBlocks()-m.FreeData(), m.DataBlocks(), m.HeldRoot())
	if line := string(must(os.ReadFile("testdata/kernel.status"))); !strings.Contains(line, status) {
		t.Errorf("status is %q, the kernel's %q", status, line)
	}
	ok(t, m.ReleaseSnap())
	ok(t, m.Close())
	tool(t, dev, "thin_check")
	same(t, "dump without metadata snapshot", dump(t, dev, DumpOptions{}), want)

	restored := newDisk(256)
	ok(t, Restore(env.Real(), strings.NewReader(want), restored, RestoreOptions{}))
	same(t, "dump of the restored", dump(t, restored, DumpOptions{}), want)
	useKernelImage(t, dev, r)
}

// TestFreshEqualsKernel does what fresh.sh does: every block must be the kernel's,
// byte for byte. The kernel leaves what was in memory in the 96 unused bytes of
// each space map root in the superblock, which its checksum covers.
func TestFreshEqualsKernel(t *testing.T) {
	kernel, ours := kernelImage(t, "fresh"), newDisk(2048)
	m := must(Open(env.Real(), ours, Options{DataBlockSize: 128, Format: true}))
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
		if nr == superBlock {
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
func useKernelImage(t *testing.T, dev *memdev.Device, r *Report) {
	p := &pool{t: t, dev: dev, now: state{devs: map[uint32]map[uint64]uint64{}, size: r.Super.Data.Blocks}}
	p.open()
	for id := range r.Devices {
		p.now.devs[id] = must(mappings(p.m, id))
	}
	p.old = p.now.clone()
	rng := rand.New(rand.NewPCG(4, 4))
	next := uint64(0)
	for i := range 1000 {
		p.step(rng, &next, i)
	}
	p.commit()
	verify(t, dev, p.now)
	tool(t, dev, "thin_check")
}

// TestKernelCreditsFreedBlocksAtOnce: the status line counts blocks as free that
// AllocDataBlock will not give out before the next commit.
func TestKernelCreditsFreedBlocksAtOnce(t *testing.T) {
	p := newPool(t, 1024, 50, 0)
	p.createThin(1)
	th := p.thin(1)
	defer th.Close()
	for k := range uint64(50) {
		ok(t, p.insert(th, k))
	}
	p.commit()
	ok(t, th.RemoveRange(0, 7))
	for k := range uint64(7) {
		delete(p.now.devs[1], k)
	}
	if p.m.FreeData() != 7 {
		t.Errorf("%d blocks free within the transaction, the kernel's 6.1 says 7", p.m.FreeData())
	}
}

func TestEmptyDiskIsNoPool(t *testing.T) {
	r := must(Check(env.Real(), newDisk(100), CheckOptions{}))
	if r.Fatal == 0 {
		t.Error("an empty disk passes the check")
	}
	err := Dump(env.Real(), newDisk(100), io.Discard, DumpOptions{})
	if err == nil || !strings.Contains(err.Error(), "block 0") {
		t.Errorf("dump of an empty disk: %v", err)
	}
	if err := Restore(env.Real(), bytes.NewReader(nil), newDisk(1), RestoreOptions{}); err == nil {
		t.Error("restored to a disk of one block")
	}
}
