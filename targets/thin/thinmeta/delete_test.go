package thinmeta_test

import (
	"math/rand/v2"
	"syscall"
	"testing"

	"udm/targets/thin/internal/metatest"
	"udm/targets/thin/thinmeta"
)

// fillThin maps n blocks of a device in random order.
func fillThin(t *testing.T, p *metatest.Pool, id uint32, n uint64, rng *rand.Rand) {
	th := p.Thin(id)
	defer th.Close()
	for _, k := range rng.Perm(int(n)) {
		ok(t, p.Insert(th, uint64(k)))
	}
}

// detach begins a deletion. The model no longer has the device; the rest of it has an
// id above the highest.
func detach(t *testing.T, p *metatest.Pool, id uint32) {
	ok(t, p.M.DetachThin(id, 1000))
	delete(p.Now.Devs, id)
}

// whole checks the disk after a commit: it equals the model, and the rest of deleted
// devices is sound.
func whole(t *testing.T, p *metatest.Pool) {
	t.Helper()
	ok(t, p.M.Commit())
	p.Old = p.Now.Clone()
	ok(t, metatest.MatchesBeside(p.Dev, p.Now))
	metatest.Tool(t, p.Dev, "thin_check")
}

// TestDeleteInPortions deletes volumes that share much, little or nothing with
// others, in portions, while these others change. At each commit all is sound.
func TestDeleteInPortions(t *testing.T) {
	n := uint64(60000)
	if testing.Short() {
		n /= 4
	}
	for _, touched := range []uint64{0, 3, 200, 2000, n} {
		p := metatest.New(t, 16384, 10*n, 0)
		rng := rand.New(rand.NewPCG(*metatest.Seed, touched))
		p.CreateThin(1)
		fillThin(t, p, 1, n, rng)
		p.CreateSnap(2, 1)
		p.CreateSnap(3, 2)
		th := p.Thin(2)
		for range touched {
			ok(t, p.Insert(th, rng.Uint64N(n)))
		}
		th.Close()
		for _, id := range []uint32{2, 1} {
			detach(t, p, id)
			p.CreateThin(id) // the id is free at once
			deleteRest(t, p, rng)
		}
		th = p.Thin(3)
		if th.Mapped() != n {
			t.Errorf("%d blocks are mapped, want %d", th.Mapped(), n)
		}
		th.Close()
	}
}

// deleteRest ends the deletions of p and uses device 3 meanwhile.
func deleteRest(t *testing.T, p *metatest.Pool, rng *rand.Rand) {
	t.Helper()
	whole(t, p)
	th := p.Thin(3)
	defer th.Close()
	for i := 0; ; i++ {
		free := p.M.FreeMetadata()
		bound := p.M.DeleteCost(1000)
		if !must(p.M.Detached()) {
			return
		}
		ok(t, p.M.DeleteSome(1000))
		if took := free - min(free, p.M.FreeMetadata()); took > bound {
			t.Errorf("%d metadata blocks were taken, the bound is %d", took, bound)
		}
		ok(t, p.Insert(th, rng.Uint64N(uint64(len(p.Now.Devs[3])))))
		if i%8 == 0 {
			whole(t, p)
		}
		if i%20 == 19 {
			ok(t, p.M.Abort())
			p.Now = p.Old.Clone()
			i = 20
		}
	}
}

// TestDetached: the id of a deleted device is free, the device that is left of it
// cannot be named, and the deletion goes on after a restart.
func TestDetached(t *testing.T) {
	p := metatest.New(t, 4096, 20000, 0)
	p.CreateThin(7)
	th := p.Thin(7)
	for k := range uint64(3000) {
		ok(t, p.Insert(th, k))
	}
	if err := p.M.DetachThin(7, 1000); err != syscall.EBUSY {
		t.Errorf("deleted though open: %v", err)
	}
	th.Close()
	p.CreateThin(thinmeta.MaxID)
	detach(t, p, 7)
	if err := p.M.DetachThin(7, 1000); err != syscall.ENODATA {
		t.Errorf("deleted twice: %v", err)
	}
	if ids := must(p.M.IDs()); len(ids) != 1 || ids[0] != thinmeta.MaxID {
		t.Errorf("devices %v", ids)
	}
	ok(t, p.M.DeleteSome(100))
	whole(t, p)
	ok(t, p.M.Close())
	p.Open()
	for must(p.M.Detached()) {
		ok(t, p.M.DeleteSome(100))
	}
	if err := p.M.DeleteSome(100); err != syscall.ENODATA {
		t.Errorf("deleted what is not there: %v", err)
	}
	p.Commit()
	if free := p.M.FreeData(); free != 20000 {
		t.Errorf("%d data blocks are free", free)
	}
}
