package thinmeta_test

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
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
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

// TestCrash cuts the power before every write and flush of a random run. The disk must
// hold the old transaction or, from the write of the superblock on, the new one.
func TestCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(*metatest.Seed, 7))
	p := metatest.New(t, 4096, 5000, 1)
	p.CreateThin(1)
	p.Commit()
	states, news := 0, 0
	p.Via = func(d blk.Device) blk.Device {
		return hooked{d, func(b *blk.Bio) {
			if states++; states > *crashes {
				return
			}
			clone := p.Dev.CrashClone(rng.Uint64())
			err := metatest.Matches(clone, p.Old)
			if err != nil && metatest.Matches(clone, p.Now) == nil {
				news++
				return
			}
			if err != nil {
				t.Fatalf("state %d, before %v: %v", states, b, err)
			}
		}}
	}
	ok(t, p.M.Close())
	p.Open()
	next := uint64(0)
	for states < metatest.Scaled(*crashes) {
		for range 1 + rng.IntN(60) {
			p.Step(rng, &next, 0)
		}
		p.Commit()
	}
	if news == 0 {
		t.Error("no crash left a new transaction: the test looks at too little")
	}
	t.Logf("%d states, %d of them new", states, news)
}

// TestCrashInFormat: the superblock is either still zero or everything is there.
func TestCrashInFormat(t *testing.T) {
	dev := metatest.Disk(1024)
	n := 0
	look := func(*blk.Bio) {
		n++
		clone := dev.CrashClone(uint64(n))
		if _, err := thinmeta.Open(env.Real(), clone, thinmeta.Options{DataBlockSize: 128}); err == syscall.EPERM {
			return
		}
		ok(t, metatest.Matches(clone, metatest.State{}))
	}
	must(thinmeta.Open(env.Real(), hooked{dev, look}, thinmeta.Options{DataBlockSize: 128, Format: true}))
	ok(t, metatest.Matches(dev.CrashCloneNone(), metatest.State{}))
}

// TestFailInFormat: a device that could not be formatted is not taken for a pool.
func TestFailInFormat(t *testing.T) {
	blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		dev := metatest.Disk(1024)
		m, err := thinmeta.Open(env.Real(), f.Wrap(dev), thinmeta.Options{DataBlockSize: 128, Format: true})
		if (err != nil) != f.Failed() {
			t.Fatalf("error %v, though I/O failed: %v", err, f.Failed())
		}
		if err == nil {
			ok(t, m.Close())
		}
		if _, err := thinmeta.Open(env.Real(), dev, thinmeta.Options{DataBlockSize: 128}); err != syscall.EPERM {
			ok(t, metatest.Matches(dev, metatest.State{}))
		}
	})
}

// TestDataBeforeMetadata checks step 1 of a commit, and that its error prevents the
// others.
func TestDataBeforeMetadata(t *testing.T) {
	p := metatest.New(t, 1024, 100, 0)
	flushed := false
	p.Via = func(d blk.Device) blk.Device {
		return hooked{d, func(b *blk.Bio) {
			if !flushed {
				t.Errorf("%v before the pre-commit callback", b)
			}
		}}
	}
	ok(t, p.M.Close())
	p.Open()
	bad := errors.New("data device failed")
	p.M.SetPreCommit(func() error { return bad })
	p.CreateThin(1)
	if err := p.M.Commit(); err != bad {
		t.Fatal(err)
	}
	ok(t, p.M.Abort())
	p.Now = p.Old.Clone()
	p.M.SetPreCommit(func() error { flushed = true; return nil })
	p.CreateThin(1)
	p.Commit()
}

// failOps are the operations, each with what must be there before it.
var failOps = map[string]func(p *metatest.Pool) error{
	"create":  func(p *metatest.Pool) error { p.Now.Devs[7] = map[uint64]uint64{}; return p.M.CreateThin(7) },
	"snap":    func(p *metatest.Pool) error { p.Now.Devs[8] = maps.Clone(p.Now.Devs[1]); return p.M.CreateSnap(8, 1) },
	"delete":  func(p *metatest.Pool) error { delete(p.Now.Devs, 2); return p.M.DeleteThin(2) },
	"id":      func(p *metatest.Pool) error { return p.M.SetTransactionID(0, 1) },
	"reserve": func(p *metatest.Pool) error { return p.M.ReserveSnap() },
	"release": func(p *metatest.Pool) error {
		if err := p.M.ReserveSnap(); err != nil {
			return err
		}
		return p.M.ReleaseSnap()
	},
	"data":     func(p *metatest.Pool) error { return p.M.ResizeData(40000) },
	"metadata": func(p *metatest.Pool) error { return p.M.ResizeMetadata(2048) },
	"insert": func(p *metatest.Pool) error {
		th, err := p.M.OpenThin(1)
		for k := uint64(0); err == nil && k < 200; k++ {
			err = p.Insert(th, 4000+k*7)
		}
		return err
	},
	"remove": func(p *metatest.Pool) error {
		th, err := p.M.OpenThin(1)
		if err != nil {
			return err
		}
		maps.DeleteFunc(p.Now.Devs[1], func(k, _ uint64) bool { return k >= 100 && k < 1500 })
		return th.RemoveRange(100, 1500)
	},
	"refs": func(p *metatest.Pool) error {
		b, err := p.M.AllocDataBlock()
		for range 6 {
			if err == nil {
				err = p.M.IncData(b, b+1)
			}
		}
		for range 6 {
			if err == nil {
				err = p.M.DecData(b, b+1)
			}
		}
		return err
	},
}

// TestFailEach fails each I/O of each operation and its commit: the error is reported,
// the disk holds the old or the new state, and the pool goes on after Abort.
func TestFailEach(t *testing.T) {
	base := metatest.New(t, 1024, 20000, 0)
	base.CreateThin(1)
	th := base.Thin(1)
	for k := range uint64(metatest.Scaled(2000)) {
		ok(t, base.Insert(th, k*2))
	}
	th.Close()
	base.CreateSnap(2, 1)
	base.Commit()
	for name, op := range failOps {
		t.Run(name, func(t *testing.T) {
			n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) { failOne(t, f, base, op) })
			t.Logf("%d I/Os", n)
		})
	}
}

func failOne(t *testing.T, f *blktest.Failer, base *metatest.Pool, op func(p *metatest.Pool) error) {
	p := &metatest.Pool{T: t, Dev: base.Dev.Clone(), O: thinmeta.Options{CacheBytes: 1}, Now: base.Now.Clone(), Old: base.Now.Clone()}
	p.Dev.Resize(2048 * pdata.BlockSectors)
	m, err := thinmeta.Open(env.Real(), f.Wrap(p.Dev), p.O)
	if err != nil {
		if !f.Failed() {
			t.Fatal(err)
		}
		return
	}
	p.M = m
	if err = op(p); err == nil {
		err = m.Commit()
	}
	if (err != nil) != f.Failed() {
		t.Fatalf("error %v, though I/O failed: %v", err, f.Failed())
	}
	if err == nil {
		ok(t, metatest.Matches(p.Dev, p.Now))
		return
	}
	if old, now := metatest.Matches(p.Dev, p.Old), metatest.Matches(p.Dev, p.Now); old != nil && now != nil {
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
		r, err := thintools.Check(env.Real(), p.Dev, thintools.CheckOptions{})
		ok(t, err)
		ok(t, r.Err())
	}
}
