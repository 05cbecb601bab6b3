package thinmeta

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
	"udm/env"
	"udm/internal/invariants"
	"udm/pdata"
)

var (
	ops  = flag.Int("ops", 10000, "random operations in a model test")
	seed = flag.Uint64("seed", 1, "seed of the random tests")

	checkEach = flag.Bool("checkeach", false, "run thin_check after every commit")
)

// scaled makes a test smaller where every access is checked.
func scaled(n int) int {
	if invariants.Enabled {
		return max(1, n/6)
	}
	return n
}

// TestModel runs random operations against the model and checks everything, by
// thin_check too, as it goes.
func TestModel(t *testing.T) {
	for _, cache := range []int{1, 0} {
		t.Run(fmt.Sprint("cache", cache), func(t *testing.T) { runModel(t, cache) })
	}
}

func runModel(t *testing.T, cache int) {
	p := newPool(t, 4096, 20000, cache)
	rng := rand.New(rand.NewPCG(*seed, uint64(cache)))
	next := uint64(0)
	for i := range *ops {
		p.step(rng, &next, i)
		if i%max(1, min(*ops/10, 10000)) == 0 {
			p.commit()
			verify(t, p.dev, p.now)
			tool(t, p.dev, "thin_check")
		}
	}
	tool(t, p.dev, "thin_check")
	t.Logf("%d devices, %d of %d data blocks free, %d of %d metadata blocks", len(p.now.devs), p.m.FreeData(), p.m.DataBlocks(), p.m.FreeMetadata(), p.m.MetadataBlocks())
}

func (p *pool) step(rng *rand.Rand, next *uint64, i int) {
	p.t.Helper()
	ids := slices.Sorted(maps.Keys(p.now.devs))
	pick := func() uint32 { return ids[rng.IntN(len(ids))] }
	fresh := uint32(rng.IntN(1 << 24))
	op := rng.IntN(1000)
	switch {
	case len(ids) == 0 || op < 5 && len(ids) < 12:
		p.createThin(fresh)
	case op < 10 && len(ids) < 12:
		p.createSnap(fresh, pick())
	case op < 15 && len(ids) > 3:
		p.delete(pick())
	case op < 700:
		id := pick()
		th := p.thin(id)
		k := rng.Uint64N(5000)
		if op < 400 {
			*next++
			k = *next % 5000
		}
		if err := p.insert(th, k); err != nil && err != syscall.ENOSPC {
			p.t.Fatalf("op %d: %v", i, err)
		}
		th.Close()
	case op < 760:
		id := pick()
		th := p.thin(id)
		b := rng.Uint64N(5000)
		e := b + rng.Uint64N(300)
		ok(p.t, th.RemoveRange(b, e))
		maps.DeleteFunc(p.now.devs[id], func(k, _ uint64) bool { return k >= b && k < e })
		if th.Mapped() != uint64(len(p.now.devs[id])) {
			p.t.Fatalf("op %d: %d mapped, want %d", i, th.Mapped(), len(p.now.devs[id]))
		}
		th.Close()
	case op < 770:
		p.commit()
	case op < 772:
		ok(p.t, p.m.Abort())
		p.now = p.old.clone()
	case op < 774:
		ok(p.t, p.m.Close())
		p.old = p.now.clone()
		p.open()
	case op < 777:
		p.now.size += rng.Uint64N(100)
		ok(p.t, p.m.ResizeData(p.now.size))
	case op < 779 && p.m.MetadataBlocks() < 20000:
		blocks := p.m.MetadataBlocks() + rng.Uint64N(40)
		p.dev.Resize(blocks * pdata.BlockSectors)
		ok(p.t, p.m.ResizeMetadata(blocks))
	case op < 782:
		p.snapOp()
	default:
		id := pick()
		th := p.thin(id)
		k := rng.Uint64N(5000)
		got, err := th.Find(k)
		if b, had := p.now.devs[id][k]; had && (err != nil || got.Block != b) || !had && err != syscall.ENODATA {
			p.t.Fatalf("op %d: find %d: %v, %v", i, k, got, err)
		}
		if err == nil {
			refs := must(p.m.DataRefs(got.Block))
			if refs > 1 && !got.Shared && p.m.HeldRoot() == 0 {
				p.t.Fatalf("op %d: block %d has %d references and is not shared", i, got.Block, refs)
			}
		}
		if fast, ferr := th.TryFind(k); ferr != syscall.EAGAIN && (ferr != err || fast != got) {
			p.t.Fatalf("op %d: TryFind %d: %v, %v; Find: %v, %v", i, k, fast, ferr, got, err)
		}
		th.Close()
	}
}

func (p *pool) snapOp() {
	p.t.Helper()
	if p.m.HeldRoot() == 0 {
		ok(p.t, p.m.ReserveSnap())
		p.old = p.now.clone()
	} else {
		ok(p.t, p.m.ReleaseSnap())
	}
}

func TestErrors(t *testing.T) {
	p := newPool(t, 1024, 100, 0)
	p.createThin(1)
	p.createSnap(2, 1)
	for _, c := range []struct {
		what string
		got  error
		want error
	}{
		{"create_thin of a known id", p.m.CreateThin(1), syscall.EEXIST},
		{"create_snap of a known id", p.m.CreateSnap(2, 1), syscall.EEXIST},
		{"create_snap of nothing", p.m.CreateSnap(3, 9), syscall.ENODATA},
		{"delete of nothing", p.m.DeleteThin(9), syscall.ENODATA},
		{"set_transaction_id", p.m.SetTransactionID(1, 2), syscall.EINVAL},
		{"release without reserve", p.m.ReleaseSnap(), syscall.EINVAL},
		{"shrink data", p.m.ResizeData(99), syscall.EINVAL},
		{"shrink metadata", p.m.ResizeMetadata(99), syscall.EINVAL},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	th := p.thin(1)
	if err := p.m.DeleteThin(1); err != syscall.EBUSY {
		t.Errorf("delete of an open device: %v", err)
	}
	if err := p.m.Close(); err != syscall.EBUSY {
		t.Errorf("close with an open device: %v", err)
	}
	if _, err := th.TryFind(0); err != syscall.ENODATA {
		t.Errorf("TryFind of an unmapped block: %v", err)
	}
	th.Close()
	ok(t, p.m.ReserveSnap())
	if err := p.m.ReserveSnap(); err != syscall.EBUSY {
		t.Errorf("second reserve: %v", err)
	}
	p.m.SetReadOnly()
	if err := p.m.CreateThin(7); err != syscall.EPERM {
		t.Errorf("create_thin when read-only: %v", err)
	}
	p.m.SetReadWrite()
}

func TestOpenRefuses(t *testing.T) {
	dev := newDisk(1024)
	if _, err := Open(env.Real(), dev, Options{DataBlockSize: 128}); err != syscall.EPERM {
		t.Errorf("unformatted: %v", err)
	}
	p := newPool(t, 1024, 10, 0)
	if _, err := Open(env.Real(), p.dev, Options{DataBlockSize: 256}); err != syscall.EINVAL {
		t.Errorf("other block size: %v", err)
	}
	for _, flag := range []struct{ at, ro, want int }{{356, 1, 0}, {356, 0, int(syscall.EINVAL)}, {360, 1, int(syscall.EINVAL)}} {
		dev := p.dev.Clone()
		var b [4096]byte
		ok(t, blk.ReadSectors(env.Real(), dev, b[:], 0))
		b[flag.at] = 1
		KindSuper.Seal(b[:], 0)
		ok(t, blk.WriteSectors(env.Real(), dev, b[:], 0, 0))
		_, err := Open(env.Real(), dev, Options{ReadOnly: flag.ro == 1})
		if want := syscall.Errno(flag.want); want == 0 && err != nil || want != 0 && err != want {
			t.Errorf("flag at %d, read-only %d: %v", flag.at, flag.ro, err)
		}
	}
}

// TestOpenWritesNothing holds the in-service rule.
func TestOpenWritesNothing(t *testing.T) {
	p := newPool(t, 1024, 10, 0)
	p.createThin(1)
	p.commit()
	before := p.dev.Sum256()
	m := must(Open(env.Real(), p.dev, Options{}))
	th := must(m.OpenThin(1))
	if _, err := th.Find(0); err != syscall.ENODATA {
		t.Fatal(err)
	}
	th.Close()
	ok(t, m.Commit())
	ok(t, m.Close())
	if p.dev.Sum256() != before {
		t.Fatal("metadata was written though nothing was changed")
	}
}

func TestSharing(t *testing.T) {
	p := newPool(t, 1024, 100, 0)
	p.createThin(1)
	th := p.thin(1)
	defer th.Close()
	ok(t, p.insert(th, 5))
	if m := must(th.Find(5)); m.Shared {
		t.Fatal("shared before any snapshot")
	}
	p.createSnap(2, 1)
	if m := must(th.TryFind(5)); !m.Shared {
		t.Fatal("not shared after a snapshot")
	}
	ok(t, p.insert(th, 5))
	if m := must(th.TryFind(5)); m.Shared {
		t.Fatal("shared after sharing was broken")
	}
	p.commit()
	p.delete(2)
	p.commit()
	if n := p.m.DataBlocks() - p.m.FreeData(); n != 1 {
		t.Fatalf("%d data blocks in use, want 1", n)
	}
}

func TestAbort(t *testing.T) {
	p := newPool(t, 1024, 100, 0)
	p.createThin(1)
	th := p.thin(1)
	ok(t, p.insert(th, 1))
	p.commit()
	ok(t, p.insert(th, 2))
	p.createThin(3)
	ok(t, p.m.Abort())
	p.now = p.old.clone()
	if !th.AbortedChanges() || !th.Changed() || th.Mapped() != 1 {
		t.Fatalf("aborted %v, changed %v, mapped %d", th.AbortedChanges(), th.Changed(), th.Mapped())
	}
	if _, err := th.Find(2); err != syscall.ENODATA {
		t.Fatal(err)
	}
	if _, err := p.m.OpenThin(3); err != syscall.ENODATA {
		t.Fatal(err)
	}
	ok(t, p.m.SetNeedsCheck())
	th.Close()
	s := must(ReadSuper(env.Real(), p.dev.CrashCloneNone()))
	if !s.NeedsCheck() {
		t.Fatal("needs_check is not durable")
	}
	_ = must(Mend(env.Real(), p.dev, CheckOptions{}))
	if must(ReadSuper(env.Real(), p.dev)).NeedsCheck() {
		t.Fatal("needs_check is still set")
	}
	p.open()
}

// TestOutOfData holds that blocks freed in a transaction come back after it.
func TestOutOfData(t *testing.T) {
	p := newPool(t, 1024, 50, 0)
	p.createThin(1)
	th := p.thin(1)
	defer th.Close()
	for k := range uint64(50) {
		ok(t, p.insert(th, k))
	}
	if _, err := p.m.AllocDataBlock(); err != syscall.ENOSPC {
		t.Fatal(err)
	}
	p.commit()
	ok(t, th.RemoveRange(10, 12))
	delete(p.now.devs[1], 10)
	delete(p.now.devs[1], 11)
	if _, err := p.m.AllocDataBlock(); err != syscall.ENOSPC {
		t.Fatalf("a block freed in this transaction was given out: %v", err)
	}
	p.commit()
	ok(t, p.insert(th, 10))
}

// TestOutOfMetadata fills the metadata device: the transaction that hits the
// end breaks and is aborted, and growing makes room.
func TestOutOfMetadata(t *testing.T) {
	p := newPool(t, 200, 1<<20, 0)
	low := 0
	p.m.SetLowWatermark(50, func() { low++ })
	p.createThin(1)
	th := p.thin(1)
	defer th.Close()
	var err error
	rng := rand.New(rand.NewPCG(1, 1))
	for i := 0; err == nil; i++ {
		if i%100 == 0 {
			if err = p.m.Commit(); err != nil {
				break
			}
			p.old = p.now.clone()
		}
		err = p.insert(th, rng.Uint64N(1<<40))
	}
	if err != ErrMetadataFull || !errors.Is(err, syscall.ENOSPC) || low == 0 {
		t.Fatalf("%v, low-water mark reached %d times", err, low)
	}
	if err := p.m.Commit(); err != ErrMetadataFull {
		t.Fatalf("commit of a broken transaction: %v", err)
	}
	ok(t, p.m.Abort())
	p.now = p.old.clone()
	p.dev.Resize(400 * pdata.BlockSectors)
	ok(t, p.m.ResizeMetadata(400))
	p.commit()
	for range 100 {
		ok(t, p.insert(th, rng.Uint64N(1<<40)))
	}
	p.commit()
	tool(t, p.dev, "thin_check")
}

func TestFormatMatchesThinRestore(t *testing.T) {
	p := newPool(t, 2048, 2048, 0)
	tool(t, p.dev, "thin_check")
	if free := p.m.MetadataBlocks() - p.m.FreeMetadata(); free != 213 {
		t.Errorf("a fresh pool of 8 MiB of metadata shows %d blocks used, the kernel 213", free)
	}
}
