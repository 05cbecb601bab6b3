package thinmeta

import (
	"errors"
	"flag"
	"maps"
	"math/rand/v2"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/env"
	"udm/pdata"
)

var crashes = flag.Int("crashes", 300, "crash states to look at")

// hooked calls before with every write and flush.
type hooked struct {
	blk.Device
	before func(*blk.Bio)
}

func (h hooked) Submit(b *blk.Bio) {
	if b.Op != blk.Read {
		h.before(b)
	}
	h.Device.Submit(b)
}

// TestCrash cuts the power before every write and flush of a random run. What is
// left must be the old transaction, or, from the superblock's write on, the new
// one.
func TestCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(*seed, 7))
	p := newPool(t, 4096, 5000, 1)
	p.createThin(1)
	p.commit()
	states, news := 0, 0
	p.via = func(d blk.Device) blk.Device {
		return hooked{d, func(b *blk.Bio) {
			if states++; states > *crashes {
				return
			}
			clone := p.dev.CrashClone(rng.Uint64())
			err := matches(clone, p.old)
			if err != nil && matches(clone, p.now) == nil {
				news++
				return
			}
			if err != nil {
				t.Fatalf("state %d, before %v: %v", states, b, err)
			}
		}}
	}
	ok(t, p.m.Close())
	p.open()
	next := uint64(0)
	for states < scaled(*crashes) {
		for range 1 + rng.IntN(60) {
			p.step(rng, &next, 0)
		}
		p.commit()
	}
	if news == 0 {
		t.Error("no crash left a new transaction: the test looks at too little")
	}
	t.Logf("%d states, %d of them new", states, news)
}

// TestCrashInFormat: the superblock is either still zero or everything is there.
func TestCrashInFormat(t *testing.T) {
	dev := newDisk(1024)
	n := 0
	look := func(*blk.Bio) {
		n++
		clone := dev.CrashClone(uint64(n))
		if _, err := Open(env.Real(), clone, Options{DataBlockSize: 128}); err == syscall.EPERM {
			return
		}
		ok(t, matches(clone, state{}))
	}
	must(Open(env.Real(), hooked{dev, look}, Options{DataBlockSize: 128, Format: true}))
	ok(t, matches(dev.CrashCloneNone(), state{}))
}

// TestFailInFormat: a device that could not be formatted is not taken for a pool.
func TestFailInFormat(t *testing.T) {
	blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		dev := newDisk(1024)
		m, err := Open(env.Real(), f.Wrap(dev), Options{DataBlockSize: 128, Format: true})
		if (err != nil) != f.Hit() {
			t.Fatalf("error %v, though I/O failed: %v", err, f.Hit())
		}
		if err == nil {
			ok(t, m.Close())
		}
		if _, err := Open(env.Real(), dev, Options{DataBlockSize: 128}); err != syscall.EPERM {
			ok(t, matches(dev, state{}))
		}
	})
}

// TestDataBeforeMetadata holds step 1 of a commit, and that its error stops the
// rest.
func TestDataBeforeMetadata(t *testing.T) {
	p := newPool(t, 1024, 100, 0)
	flushed := false
	p.via = func(d blk.Device) blk.Device {
		return hooked{d, func(b *blk.Bio) {
			if !flushed {
				t.Errorf("%v before the pre-commit callback", b)
			}
		}}
	}
	ok(t, p.m.Close())
	p.open()
	bad := errors.New("data device failed")
	p.m.SetPreCommit(func() error { return bad })
	p.createThin(1)
	if err := p.m.Commit(); err != bad {
		t.Fatal(err)
	}
	ok(t, p.m.Abort())
	p.now = p.old.clone()
	p.m.SetPreCommit(func() error { flushed = true; return nil })
	p.createThin(1)
	p.commit()
}

// failOps are the operations, each with what must be there before it.
var failOps = map[string]func(p *pool) error{
	"create":  func(p *pool) error { p.now.devs[7] = map[uint64]uint64{}; return p.m.CreateThin(7) },
	"snap":    func(p *pool) error { p.now.devs[8] = maps.Clone(p.now.devs[1]); return p.m.CreateSnap(8, 1) },
	"delete":  func(p *pool) error { delete(p.now.devs, 2); return p.m.DeleteThin(2) },
	"id":      func(p *pool) error { return p.m.SetTransactionID(0, 1) },
	"reserve": func(p *pool) error { return p.m.ReserveSnap() },
	"release": func(p *pool) error {
		if err := p.m.ReserveSnap(); err != nil {
			return err
		}
		return p.m.ReleaseSnap()
	},
	"data":     func(p *pool) error { return p.m.ResizeData(40000) },
	"metadata": func(p *pool) error { return p.m.ResizeMetadata(2048) },
	"insert": func(p *pool) error {
		th, err := p.m.OpenThin(1)
		for k := uint64(0); err == nil && k < 200; k++ {
			err = p.insert(th, 4000+k*7)
		}
		return err
	},
	"remove": func(p *pool) error {
		th, err := p.m.OpenThin(1)
		if err != nil {
			return err
		}
		maps.DeleteFunc(p.now.devs[1], func(k, _ uint64) bool { return k >= 100 && k < 1500 })
		return th.RemoveRange(100, 1500)
	},
	"refs": func(p *pool) error {
		b, err := p.m.AllocDataBlock()
		for range 5 {
			if err == nil {
				err = p.m.IncData(b, b+1)
			}
		}
		if err == nil {
			err = p.m.DecData(b, b+1)
		}
		for range 5 {
			if err == nil {
				err = p.m.DecData(b, b+1)
			}
		}
		return err
	},
}

// TestFailEach lets each I/O of each operation and its commit fail: the error is
// reported, the disk holds the old or the new state, and after Abort the pool
// goes on.
func TestFailEach(t *testing.T) {
	base := newPool(t, 1024, 20000, 0)
	base.createThin(1)
	th := base.thin(1)
	for k := range uint64(scaled(2000)) {
		ok(t, base.insert(th, k*2))
	}
	th.Close()
	base.createSnap(2, 1)
	base.commit()
	for name, op := range failOps {
		t.Run(name, func(t *testing.T) {
			n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) { failOne(t, f, base, op) })
			t.Logf("%d I/Os", n)
		})
	}
}

func failOne(t *testing.T, f *blktest.Failer, base *pool, op func(p *pool) error) {
	p := &pool{t: t, dev: base.dev.Clone(), o: Options{CacheBytes: 1}, now: base.now.clone(), old: base.now.clone()}
	p.dev.Resize(2048 * pdata.BlockSectors)
	m, err := Open(env.Real(), f.Wrap(p.dev), p.o)
	if err != nil {
		if !f.Hit() {
			t.Fatal(err)
		}
		return
	}
	p.m = m
	if err = op(p); err == nil {
		err = m.Commit()
	}
	if (err != nil) != f.Hit() {
		t.Fatalf("error %v, though I/O failed: %v", err, f.Hit())
	}
	if err == nil {
		ok(t, matches(p.dev, p.now))
		return
	}
	if old, now := matches(p.dev, p.old), matches(p.dev, p.now); old != nil && now != nil {
		t.Fatalf("neither the old state (%v) nor the new one (%v)", old, now)
	}
	if err := m.Abort(); err != nil {
		if !m.Failed() {
			t.Fatalf("abort: %v, and not failed", err)
		}
		if err := m.CreateThin(99); err != syscall.EINVAL {
			t.Fatalf("failed metadata: %v", err)
		}
		return
	}
	if m.CreateThin(99) == nil && m.Commit() == nil {
		r, err := Check(env.Real(), p.dev, CheckOptions{})
		ok(t, err)
		ok(t, r.Err())
	}
}
