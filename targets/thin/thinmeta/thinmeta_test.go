package thinmeta_test

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

var ops = flag.Int("ops", 10000, "random operations in a model test")

// TestModel runs random operations against the model and checks everything repeatedly,
// also with thin_check.
func TestModel(t *testing.T) {
	for _, cache := range []int{1, 0} {
		t.Run(fmt.Sprint("cache", cache), func(t *testing.T) { runModel(t, cache) })
	}
}

func runModel(t *testing.T, cache int) {
	p := metatest.New(t, 4096, 20000, cache)
	rng := rand.New(rand.NewPCG(*metatest.Seed, uint64(cache)))
	next := uint64(0)
	for i := range *ops {
		p.Step(rng, &next, i)
		if i%max(1, min(*ops/10, 10000)) == 0 {
			p.Commit()
			metatest.Verify(t, p.Dev, p.Now)
			metatest.Tool(t, p.Dev, "thin_check")
		}
	}
	metatest.Tool(t, p.Dev, "thin_check")
	t.Logf("%d devices, %d of %d data blocks free, %d of %d metadata blocks", len(p.Now.Devs), p.M.FreeData(), p.M.DataBlocks(), p.M.FreeMetadata(), p.M.MetadataBlocks())
}

func TestErrors(t *testing.T) {
	p := metatest.New(t, 1024, 100, 0)
	p.CreateThin(1)
	p.CreateSnap(2, 1)
	for _, c := range []struct {
		what string
		got  error
		want error
	}{
		{"create_thin of a known id", p.M.CreateThin(1), syscall.EEXIST},
		{"create_snap of a known id", p.M.CreateSnap(2, 1), syscall.EEXIST},
		{"create_snap of nothing", p.M.CreateSnap(3, 9), syscall.ENODATA},
		{"delete of nothing", p.M.DeleteThin(9), syscall.ENODATA},
		{"set_transaction_id", p.M.SetTransactionID(1, 2), syscall.EINVAL},
		{"release without reserve", p.M.ReleaseSnap(), syscall.EINVAL},
		{"shrink data", p.M.ResizeData(99), syscall.EINVAL},
		{"shrink metadata", p.M.ResizeMetadata(99), syscall.EINVAL},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	th := p.Thin(1)
	if err := p.M.DeleteThin(1); err != syscall.EBUSY {
		t.Errorf("delete of an open device: %v", err)
	}
	if err := p.M.Close(); err != syscall.EBUSY {
		t.Errorf("close with an open device: %v", err)
	}
	if _, err := th.TryFind(0); err != syscall.ENODATA {
		t.Errorf("TryFind of an unmapped block: %v", err)
	}
	th.Close()
	ok(t, p.M.ReserveSnap())
	if err := p.M.ReserveSnap(); err != syscall.EBUSY {
		t.Errorf("second reserve: %v", err)
	}
	p.M.SetReadOnly()
	if err := p.M.CreateThin(7); err != syscall.EPERM {
		t.Errorf("create_thin when read-only: %v", err)
	}
	p.M.SetReadWrite()
}

func TestOpenRefuses(t *testing.T) {
	dev := metatest.Disk(1024)
	if _, err := thinmeta.Open(env.Real(), dev, thinmeta.Options{DataBlockSize: 128}); err != syscall.EPERM {
		t.Errorf("unformatted: %v", err)
	}
	p := metatest.New(t, 1024, 10, 0)
	if _, err := thinmeta.Open(env.Real(), p.Dev, thinmeta.Options{DataBlockSize: 256}); err != syscall.EINVAL {
		t.Errorf("other block size: %v", err)
	}
	for _, flag := range []struct{ at, ro, want int }{{356, 1, 0}, {356, 0, int(syscall.EINVAL)}, {360, 1, int(syscall.EINVAL)}} {
		dev := p.Dev.Clone()
		var b [4096]byte
		ok(t, blk.ReadSectors(env.Real(), dev, b[:], 0))
		b[flag.at] = 1
		thinmeta.KindSuper.Seal(b[:], 0)
		ok(t, blk.WriteSectors(env.Real(), dev, b[:], 0, 0))
		_, err := thinmeta.Open(env.Real(), dev, thinmeta.Options{ReadOnly: flag.ro == 1})
		if want := syscall.Errno(flag.want); want == 0 && err != nil || want != 0 && err != want {
			t.Errorf("flag at %d, read-only %d: %v", flag.at, flag.ro, err)
		}
	}
}

// TestOpenWritesNothing: opening metadata that are in service writes nothing.
func TestOpenWritesNothing(t *testing.T) {
	p := metatest.New(t, 1024, 10, 0)
	p.CreateThin(1)
	p.Commit()
	before := p.Dev.Sum256()
	m := must(thinmeta.Open(env.Real(), p.Dev, thinmeta.Options{}))
	th := must(m.OpenThin(1))
	if _, err := th.Find(0); err != syscall.ENODATA {
		t.Fatal(err)
	}
	th.Close()
	ok(t, m.Commit())
	ok(t, m.Close())
	if p.Dev.Sum256() != before {
		t.Fatal("metadata was written though nothing was changed")
	}
}

func TestSharing(t *testing.T) {
	p := metatest.New(t, 1024, 100, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	ok(t, p.Insert(th, 5))
	if m := must(th.Find(5)); m.Shared {
		t.Fatal("shared before any snapshot")
	}
	p.CreateSnap(2, 1)
	if m := must(th.TryFind(5)); !m.Shared {
		t.Fatal("not shared after a snapshot")
	}
	ok(t, p.Insert(th, 5))
	if m := must(th.TryFind(5)); m.Shared {
		t.Fatal("shared after sharing was broken")
	}
	p.Commit()
	p.Delete(2)
	p.Commit()
	if n := p.M.DataBlocks() - p.M.FreeData(); n != 1 {
		t.Fatalf("%d data blocks in use, want 1", n)
	}
}

func TestAbort(t *testing.T) {
	p := metatest.New(t, 1024, 100, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	ok(t, p.Insert(th, 1))
	p.Commit()
	ok(t, p.Insert(th, 2))
	p.CreateThin(3)
	ok(t, p.M.Abort())
	p.Now = p.Old.Clone()
	if !th.AbortedChanges() || !th.Changed() || th.Mapped() != 1 {
		t.Fatalf("aborted %v, changed %v, mapped %d", th.AbortedChanges(), th.Changed(), th.Mapped())
	}
	if _, err := th.Find(2); err != syscall.ENODATA {
		t.Fatal(err)
	}
	if _, err := p.M.OpenThin(3); err != syscall.ENODATA {
		t.Fatal(err)
	}
	ok(t, p.M.SetNeedsCheck())
	th.Close()
	s := must(thinmeta.ReadSuper(env.Real(), p.Dev.CrashCloneNone()))
	if !s.NeedsCheck() {
		t.Fatal("needs_check is not durable")
	}
	_ = must(thintools.Mend(env.Real(), p.Dev, thintools.CheckOptions{}))
	if must(thinmeta.ReadSuper(env.Real(), p.Dev)).NeedsCheck() {
		t.Fatal("needs_check is still set")
	}
	p.Open()
}

// TestOutOfData: blocks freed in a transaction are available after it.
func TestOutOfData(t *testing.T) {
	p := metatest.New(t, 1024, 50, 0)
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	for k := range uint64(50) {
		ok(t, p.Insert(th, k))
	}
	if _, err := p.M.AllocDataBlock(); err != syscall.ENOSPC {
		t.Fatal(err)
	}
	p.Commit()
	ok(t, th.RemoveRange(10, 12))
	delete(p.Now.Devs[1], 10)
	delete(p.Now.Devs[1], 11)
	if _, err := p.M.AllocDataBlock(); err != syscall.ENOSPC {
		t.Fatalf("a block freed in this transaction was given out: %v", err)
	}
	p.Commit()
	ok(t, p.Insert(th, 10))
}

// TestOutOfMetadata fills the metadata device: the transaction that finds no block fails
// and is aborted, and growing the device makes room.
func TestOutOfMetadata(t *testing.T) {
	p := metatest.New(t, 200, 1<<20, 0)
	low := 0
	p.M.SetLowWatermark(50, func() { low++ })
	p.CreateThin(1)
	th := p.Thin(1)
	defer th.Close()
	var err error
	rng := rand.New(rand.NewPCG(1, 1))
	for i := 0; err == nil; i++ {
		if i%100 == 0 {
			if err = p.M.Commit(); err != nil {
				break
			}
			p.Old = p.Now.Clone()
		}
		err = p.Insert(th, rng.Uint64N(1<<40))
	}
	if err != thinmeta.ErrMetadataFull || !errors.Is(err, syscall.ENOSPC) || low == 0 {
		t.Fatalf("%v, low-water mark reached %d times", err, low)
	}
	if err := p.M.Commit(); err != thinmeta.ErrMetadataFull {
		t.Fatalf("commit of a broken transaction: %v", err)
	}
	ok(t, p.M.Abort())
	p.Now = p.Old.Clone()
	p.Dev.Resize(400 * pdata.BlockSectors)
	ok(t, p.M.ResizeMetadata(400))
	p.Commit()
	for range 100 {
		ok(t, p.Insert(th, rng.Uint64N(1<<40)))
	}
	p.Commit()
	metatest.Tool(t, p.Dev, "thin_check")
}

func TestFormatMatchesThinRestore(t *testing.T) {
	p := metatest.New(t, 2048, 2048, 0)
	metatest.Tool(t, p.Dev, "thin_check")
	if free := p.M.MetadataBlocks() - p.M.FreeMetadata(); free != 213 {
		t.Errorf("a fresh pool of 8 MiB of metadata shows %d blocks used, the kernel 213", free)
	}
}
