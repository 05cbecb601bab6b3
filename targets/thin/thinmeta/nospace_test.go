package thinmeta_test

import (
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/targets/thin/internal/metatest"
)

// fullDisk accepts a number of writes and then has no space until roomy is set.
type fullDisk struct {
	blk.Device
	takes, refused int
	roomy          bool
}

func (d *fullDisk) Submit(b *blk.Bio) {
	if b.Op == blk.Write && !d.roomy {
		if d.takes == 0 {
			d.refused++
			b.Complete(blk.NoSpace)
			return
		}
		d.takes--
	}
	d.Device.Submit(b)
}

// TestCommitWaitsForSpace fills the disk at each write of a commit. Until there is space
// nothing can be changed, everything can be read, each attempt flushes the data device,
// and a power cut leaves the last commit. Then the commit is made, or aborted.
func TestCommitWaitsForSpace(t *testing.T) {
	flushes := 0
	for n, more := 0, true; more; n++ {
		for _, undo := range []bool{false, true} {
			disk := &fullDisk{roomy: true}
			p := metatest.New(t, 4096, 5000, 1) // the smallest cache: it is written back early
			p.Via = func(d blk.Device) blk.Device { disk.Device = d; return disk }
			ok(t, p.M.Close())
			p.Open()
			p.M.SetPreCommit(func() error { flushes++; return nil })
			rng, next := rand.New(rand.NewPCG(*metatest.Seed, uint64(n))), uint64(0)
			p.CreateThin(1)
			p.Commit()
			disk.takes, disk.roomy = n, false
			changeMuch(p, rng, &next)
			if more = full(t, p, disk, &flushes); !more {
				break
			}
			if undo {
				ok(t, p.M.Undo())
				p.Now = p.Old.Clone()
			}
			disk.roomy = true
			p.Commit()
			ok(t, metatest.Matches(p.Dev.CrashCloneNone(), p.Now))
			changeMuch(p, rng, &next)
			p.Commit()
			ok(t, metatest.Matches(p.Dev.CrashCloneNone(), p.Now))
		}
	}
}

// changeMuch dirties more blocks than the cache keeps.
func changeMuch(p *metatest.Pool, rng *rand.Rand, next *uint64) {
	p.T.Helper()
	th := p.Thin(1)
	defer th.Close()
	for range 100 {
		for range 8 {
			*next++
			ok(p.T, p.Insert(th, *next*97%5000))
		}
		ok(p.T, th.RemoveRange(*next*89%5000, *next*89%5000+1))
		delete(p.Now.Devs[1], *next*89%5000)
	}
}

// full commits to a disk that may be full, and reports whether it is.
func full(t *testing.T, p *metatest.Pool, disk *fullDisk, flushes *int) bool {
	t.Helper()
	for range 3 {
		before := *flushes
		err := p.M.Commit()
		if err == nil && disk.refused == 0 {
			return false
		}
		if err != blk.NoSpace || *flushes != before+1 {
			t.Fatalf("%v after %d flushes", err, *flushes-before)
		}
		if err := p.M.CreateThin(77); err != blk.NoSpace {
			t.Fatalf("a change while a commit waits: %v", err)
		}
		if got, err := metatest.Mappings(p.M, 1); err != nil || len(got) != len(p.Now.Devs[1]) {
			t.Fatalf("%d mappings, %v; want %d", len(got), err, len(p.Now.Devs[1]))
		}
		ok(t, metatest.Matches(p.Dev.CrashClone(uint64(before)), p.Old))
	}
	return true
}
