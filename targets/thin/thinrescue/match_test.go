package thinrescue_test

import (
	"fmt"
	"testing"

	"udm/env"
	"udm/pdata"
	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thinrescue"
)

// withoutDevices examines a pool whose tree of devices is lost.
func withoutDevices(t *testing.T, p *metatest.Pool) *thinrescue.Pool {
	t.Helper()
	s := must(thinmeta.ReadSuper(env.Real(), p.Dev))
	return must(thinrescue.Examine(env.Real(), spoiled(t, p.Dev, s.MappingRoot), thinrescue.Options{}))
}

// rewrite writes to as many blocks of a volume as were removed from it.
func rewrite(t *testing.T, p *metatest.Pool, id uint32, begin, end uint64) {
	t.Helper()
	th := p.Thin(id)
	defer th.Close()
	ok(t, th.RemoveRange(begin, end))
	for k := range p.Now.Devs[id] {
		if k >= begin && k < end {
			delete(p.Now.Devs[id], k)
		}
	}
	for k := begin + 1000; k < end+1000; k++ {
		ok(t, p.Insert(th, k))
	}
}

// TestLostDevices loses the tree of devices. Each volume is found, though a metadata snapshot
// and snapshots have roots with as many mappings, and though two volumes share one.
func TestLostDevices(t *testing.T) {
	p := metatest.New(t, 1024, 60000, 0)
	fill := func(id uint32) {
		th := p.Thin(id)
		defer th.Close()
		for k := range uint64(100) {
			ok(t, p.Insert(th, k))
		}
	}
	for id := range uint32(3) {
		p.CreateThin(id)
		fill(id)
	}
	p.Commit()
	ok(t, p.M.ReserveSnap())
	p.Commit()
	p.CreateSnap(3, 1)
	for id := range uint32(3) {
		rewrite(t, p, id, 0, 10+uint64(id))
		p.Commit()
	}
	rewrite(t, p, 0, 50, 55)
	rewrite(t, p, 3, 50, 55)
	p.CreateSnap(4, 2)
	rewrite(t, p, 0, 60, 65)
	p.Commit()
	all(t, withoutDevices(t, p), p.Now, false)
}

// TestLostDevicesAtRandom does the same with pools that random operations have been through. Of
// many pools, one in twenty may have an origin and a snapshot with as many mappings that nothing
// tells apart.
func TestLostDevicesAtRandom(t *testing.T) {
	without := func(seed uint64) (*thinrescue.Pool, metatest.State) {
		seed += *metatest.Seed
		p := busyPool(t, seed, 1500+int(seed%7)*500)
		return withoutDevices(t, p), p.Now
	}
	for _, seed := range []uint64{34, 41, 57} { // with a metadata snapshot, and roots that are alike
		pool, want := without(seed)
		all(t, pool, want, false)
	}
	if testing.Short() {
		return
	}
	mistaken := 0
	for seed := range uint64(100) {
		pool, want := without(seed)
		if s := judge(t, fmt.Sprint("seed ", seed), pool, want, nil); s.searched < s.all {
			mistaken++
		}
	}
	if t.Logf("%d of 100 pools have volumes with other mappings", mistaken); mistaken > 5 {
		t.Error("too many")
	}
}

// TestLostDevicesAndDetails loses the tree of devices and a leaf of the details: the volumes
// whose details are lost are those of older states.
func TestLostDevicesAndDetails(t *testing.T) {
	p := metatest.New(t, 4096, 60000, 0)
	for id := range uint32(300) {
		p.CreateThin(id)
		th := p.Thin(id)
		ok(t, p.Insert(th, uint64(id)))
		th.Close()
	}
	p.Commit()
	rewrite(t, p, 299, 0, 10)
	p.Commit()
	s := must(thinmeta.ReadSuper(env.Real(), p.Dev))
	var leaf uint64
	bm := pdata.NewBlockManager(env.Real(), p.Dev, 0)
	ok(t, pdata.WalkLeaves(bm, s.DetailsRoot, thinmeta.DetailsSize, nil, func(l pdata.Leaf) error {
		if leaf == 0 {
			leaf = l.Nr()
		}
		return nil
	}))
	pool := must(thinrescue.Examine(env.Real(), spoiled(t, p.Dev, s.MappingRoot, leaf), thinrescue.Options{}))
	all(t, pool, p.Now, false)
}
