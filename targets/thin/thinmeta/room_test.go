package thinmeta_test

import (
	"math/rand/v2"
	"testing"

	"udm/env"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
)

// TestRemoveCost checks the bound on a removal whose path is not shared while the leaves
// beside it are, with all counts in the reference count tree.
func TestRemoveCost(t *testing.T) {
	const n = uint64(60000) // with fewer, no removal copies a shared leaf
	m := must(thinmeta.Open(env.Real(), metatest.Disk(1<<15), thinmeta.Options{DataBlockSize: 128, Format: true}))
	ok(t, m.ResizeData(2*n))
	ok(t, m.CreateThin(1))
	th := must(m.OpenThin(1))
	rng := rand.New(rand.NewPCG(*metatest.Seed, 30))
	for _, k := range rng.Perm(int(n)) { // neighbours lie far apart on the data device
		ok(t, th.Insert(uint64(k), must(m.AllocDataBlock())))
	}
	for range 2 {
		ok(t, m.IncData(0, n))
	}
	most := uint64(0)
	for i := range uint32(10) {
		ok(t, m.CreateSnap(2+i, 1))
		at := rng.Uint64N(n - 400)
		ok(t, th.Insert(at, must(m.AllocDataBlock()))) // the way is not shared any more
		ok(t, m.Commit())
		bound, before := th.RemoveCost(at, at+1, 1), m.FreeMetadata()
		ok(t, th.RemoveRange(at, at+1))
		took := before - m.FreeMetadata()
		if took > bound {
			t.Errorf("%d metadata blocks were taken, the bound is %d", took, bound)
		}
		most = max(most, took)
	}
	if most < 50 {
		t.Errorf("at most %d blocks were taken: no shared leaf was copied", most)
	}
}
