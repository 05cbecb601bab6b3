package thinmeta_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/targets/thin/internal/metatest"
)

// beside calls fn with every write and flush but those that fn makes.
type beside struct {
	blk.Device
	fn   func(b *blk.Bio)
	busy bool
}

func (d *beside) Submit(b *blk.Bio) {
	if b.Op != blk.Read && d.fn != nil && !d.busy {
		d.busy = true
		d.fn(b)
		d.busy = false
	}
	d.Device.Submit(b)
}

// sealRig is three devices whose metadata are larger than the cache and, in three
// states, nearly as large as the disk: pages are evicted and blocks reused all the time.
func sealRig(t *testing.T, seed uint64) (*metatest.Pool, *beside, *rand.Rand) {
	d := &beside{}
	p := metatest.New(t, 600, 40000, 1)
	for id := range uint32(devices) {
		p.CreateThin(id)
		th := p.Thin(id)
		for k := range uint64(keys) {
			ok(t, p.Insert(th, k))
		}
		th.Close()
	}
	p.Commit()
	p.Via = func(below blk.Device) blk.Device {
		d.Device = below
		return d
	}
	ok(t, p.M.Close())
	p.Open()
	return p, d, rand.New(rand.NewPCG(*metatest.Seed, seed))
}

const devices, keys = 3, 10000

// change maps a block or unmaps some, while there is room for it.
func change(p *metatest.Pool, rng *rand.Rand) {
	p.T.Helper()
	if p.M.FreeMetadata() < 50 {
		return
	}
	id := uint32(rng.IntN(devices))
	th := p.Thin(id)
	defer th.Close()
	k := rng.Uint64N(keys)
	if rng.IntN(5) > 0 {
		ok(p.T, p.Insert(th, k))
		return
	}
	end := k + rng.Uint64N(20)
	ok(p.T, th.RemoveRange(k, end))
	maps.DeleteFunc(p.Now.Devs[id], func(b, _ uint64) bool { return b >= k && b < end })
}

// TestCrashBesideTheNextTransaction cuts the power before writes and flushes of a sealed
// transaction when the next one has changed much: the disk has the whole old or the
// whole sealed transaction.
func TestCrashBesideTheNextTransaction(t *testing.T) {
	p, d, rng := sealRig(t, 11)
	states, sealedSeen, few := 0, 0, max(100, metatest.Scaled(*crashes)/2)
	for states < few || sealedSeen == 0 && states < 20*few {
		for range 1 + rng.IntN(60) {
			change(p, rng)
		}
		c := must(p.M.Seal())
		sealed := p.Now.Clone()
		look := func(b *blk.Bio) {
			states++
			clone := p.Dev.CrashClone(rng.Uint64())
			err := metatest.Matches(clone, p.Old)
			if err != nil && metatest.Matches(clone, sealed) == nil {
				sealedSeen++
				err = nil
			}
			if err != nil {
				t.Fatalf("state %d, before %v: %v", states, b, err)
			}
		}
		d.fn = func(b *blk.Bio) {
			for range rng.IntN(16) {
				change(p, rng)
			}
			if b.Op == blk.Flush || rng.IntN(8) == 0 {
				look(b)
			}
		}
		err := c.Write()
		d.fn = nil
		ok(t, p.M.Finish(c, err))
		p.Old = sealed
	}
	if sealedSeen == 0 {
		t.Error("no crash left a sealed transaction: the test looks at too little")
	}
}

// TestSealedTransactionFails: the sealed transaction and the one after it are lost
// together, unless the superblock has reached the disk all the same.
func TestSealedTransactionFails(t *testing.T) {
	p, d, rng := sealRig(t, 12)
	for range metatest.Scaled(40) {
		a := p.Thin(1)
		ok(t, p.Insert(a, keys+rng.Uint64N(100)))
		c := must(p.M.Seal())
		sealed := p.Now.Clone()
		d.fn = func(*blk.Bio) { change(p, rng) }
		err := c.Write()
		d.fn = nil
		if rng.IntN(2) == 0 {
			err = errors.New("a made error")
		}
		if !a.Changed() {
			t.Fatal("a device whose changes are being written counts as unchanged")
		}
		if finished := p.M.Finish(c, err); finished != err {
			t.Fatalf("Write has %v, Finish tells %v", err, finished)
		}
		if err != nil {
			ok(t, p.M.Abort())
			if !a.AbortedChanges() {
				t.Fatal("a device does not know that it lost changes")
			}
		}
		// The error is false: the disk has the sealed transaction in any case.
		p.Old = sealed
		ok(t, metatest.Matches(p.Dev, sealed))
		if err != nil {
			p.Now = sealed.Clone()
			a.Close()
			ok(t, p.M.Close())
			p.Open()
			continue
		}
		a.Close()
	}
}

// TestSealedBesideTheOwner writes sealed transactions on another goroutine, for the
// race detector.
func TestSealedBesideTheOwner(t *testing.T) {
	p, _, rng := sealRig(t, 13)
	for range metatest.Scaled(100) {
		for range 1 + rng.IntN(30) {
			change(p, rng)
		}
		c := must(p.M.Seal())
		written := make(chan error)
		go func() { written <- c.Write() }()
		sealed := p.Now.Clone()
		for range rng.IntN(60) {
			change(p, rng)
		}
		ok(t, p.M.Finish(c, <-written))
		p.Old = sealed
	}
}
