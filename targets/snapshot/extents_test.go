package snapshot

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
)

func (o *opened) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(o.Device, sector, sectors), nil
}

// exact is a disk whose allocation map is exact to the sector.
type exact struct{ blk.Device }

func (d exact) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blktest.ExactExtents(d.Device, sector, sectors)
}

func (r *rig) wantExtents(name, want string) {
	r.Helper()
	d := r.dev(name)
	list, err := d.Extents(0, d.Limits().Size)
	r.ok(err)
	got := ""
	for _, e := range list {
		sign := "-"
		if e.Data {
			sign = "+"
		}
		got += fmt.Sprintf(" %s%d", sign, e.Sectors)
	}
	if got != " "+want {
		r.Errorf("extents of %s:%s, want %s", name, got, want)
	}
}

func TestExtents(t *testing.T) {
	r := newRig(t, env.Real(), disks{})
	o := memdev.New(4096)
	r.disks["O"], r.disks["C"], r.disks["D"] = exact{o}, memdev.New(8192), memdev.New(64)
	r.device("o", 4096, "snapshot-origin O")
	write := func(name string, sector, sectors, seed uint64) {
		t.Helper()
		p := blktest.Pattern(sector, sectors, seed)
		if seed == 0 {
			p = make([]byte, len(p))
		}
		r.ok(blk.WriteSectors(r.e, r.dev(name), p, sector, 0))
	}
	write("o", 100, 20, 1)
	r.device("s", 4096, "snapshot O C P 8")
	r.device("v", 4096, "snapshot O D P 8")
	r.wantExtents("s", "-100 +20 -3976")
	write("s", 3, 1, 2)
	write("s", 4095, 1, 2)
	r.wantExtents("s", "+8 -92 +20 -3968 +8")
	write("o", 104, 8, 0) // the snapshot keeps what was there
	r.wantExtents("o", "-100 +4 -8 +8 -3976")
	r.wantExtents("s", "+8 -92 +20 -3968 +8")
	for i := uint64(0); i < 8; i++ {
		write("o", 2048+64*i, 1, 3) // more than D has room for
	}
	r.wantExtents("v", "+4096")
	r.suspend("s")
	r.wantExtents("s", "+4096")
}

// Exceptions cover, in whole chunks, what was written to a snapshot or to its origin.
func TestExceptions(t *testing.T) {
	r := newRig(t, env.Real(), disks{})
	r.disks["O"], r.disks["C"], r.disks["D"] = memdev.New(4096), memdev.New(8192), memdev.New(64)
	r.device("o", 4096, "snapshot-origin O")
	r.device("s", 4096, "snapshot O C P 8")
	want := func(name, want string) {
		t.Helper()
		got := ""
		for at := uint64(0); at < 4096; {
			list, err := Exceptions(r.dev(name), at, 4096-at)
			if err != nil {
				got = " " + err.Error()
				break
			}
			for _, e := range list {
				if e.Data {
					got += fmt.Sprintf(" %d+%d", e.Sector, e.Sectors)
				}
				at += e.Sectors
			}
		}
		if got != " "+want {
			t.Errorf("exceptions of %s:%s, want %s", name, got, want)
		}
	}
	r.ok(blk.WriteSectors(r.e, r.dev("s"), blktest.Pattern(3, 10, 1), 3, 0))
	r.ok(blk.WriteSectors(r.e, r.dev("s"), blktest.Pattern(4095, 1, 1), 4095, 0))
	r.ok(blk.WriteSectors(r.e, r.dev("o"), blktest.Pattern(2048, 1, 1), 2048, 0))
	want("s", "0+16 2048+8 4088+8")
	want("o", "o is no snapshot that stays one: invalid argument")
	r.device("v", 4096, "snapshot O D P 8")
	for i := range uint64(8) {
		r.ok(blk.WriteSectors(r.e, r.dev("o"), blktest.Pattern(0, 1, 3), 64*i, 0)) // more than D has room for
	}
	want("v", "what v held is lost: invalid argument")
}

// TestExtentsModel reads the maps of an origin and its snapshots while all of them are
// written and one of them is merged. Some writes are zeroes, so that data is copied
// out of a range before it becomes a hole.
func TestExtentsModel(t *testing.T) {
	const size = 512
	r := newRig(t, env.Real(), disks{})
	r.disks["O"] = exact{memdev.New(size)}
	ms := []*modelled{newModelled(r.device("o", size, "snapshot-origin O"), size, blktest.NewModel(size))}
	for i, kind := range []string{"P 8", "N 4"} {
		n := fmt.Sprintf("D%d", i)
		r.disks[n] = memdev.New(4 * size)
		ms = append(ms, newModelled(r.device(n, size, "snapshot O "+n+" "+kind), size, blktest.NewModel(size)))
	}
	for round := range uint64(10) {
		watch(t, round, *modelOps/20, ms)
		if t.Failed() {
			return
		}
		r.renew(ms)
	}
	watch(t, 100, *modelOps/10, ms)
	mergeOne(r, ms)
	watch(t, 200, *modelOps/4, ms[1:])
}

// renew takes new snapshots of the origin.
func (r *rig) renew(ms []*modelled) {
	for i, kind := range []string{"P 8", "N 4"} {
		n := fmt.Sprintf("D%d", i)
		r.remove(n)
		r.ok(blk.ZeroSectors(r.e, r.disks[n], 0, 8))
		m := ms[0].model.Clone()
		ms[i+1] = newModelled(r.device(n, ms[0].size, "snapshot O "+n+" "+kind), ms[0].size, m)
	}
}

// watch writes and compares maps.
func watch(t *testing.T, seed uint64, ops int, ms []*modelled) {
	const workers = 6
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, w))
			for n := 0; n < ops/workers && !t.Failed(); n++ {
				m := ms[rng.IntN(len(ms))]
				do := []func(*rand.Rand) error{m.write, m.zero, m.look, m.look}[rng.IntN(4)]
				if err := do(rng); err != nil {
					t.Errorf("seed %d, %v: %v", seed, m.dev, err)
				}
			}
		})
	}
	wg.Wait()
}

// zero writes zeroes over one or two chunks.
func (m *modelled) zero(rng *rand.Rand) error {
	i := rng.IntN(len(m.parts))
	m.parts[i].Lock()
	defer m.parts[i].Unlock()
	sector, n := uint64(i)*partLen+rng.Uint64N(6)*8, 8+rng.Uint64N(2)*8
	m.mu.Lock()
	op := m.model.Begin(sector, n, 0)
	m.mu.Unlock()
	err := blk.WriteSectors(env.Real(), m.dev, make([]byte, n*blk.SectorSize), sector, 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.model.End(op, blk.StatusOf(err), false)
	return err
}

// look compares the map of a range with the model.
func (m *modelled) look(rng *rand.Rand) error {
	i := rng.IntN(len(m.parts))
	m.parts[i].Lock()
	defer m.parts[i].Unlock()
	list, err := m.dev.Extents(uint64(i)*partLen, partLen)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.model.CheckExtents(list)
}

var _ dm.ExtentsHook = (*snapshot)(nil)

// hooked is a disk with an exact map. A test can act while the map is being made.
type hooked struct {
	blk.Device
	mem           blk.Device
	before, after func()
}

func (d *hooked) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	before, after := d.before, d.after
	d.before, d.after = nil, nil
	if before != nil {
		before()
	}
	list, err := blktest.ExactExtents(d.mem, sector, sectors)
	if after != nil {
		after()
	}
	return list, err
}

// newHooked is a rig with an origin of 64 sectors with data in 8 to 15.
func newHooked(t *testing.T) (*rig, *hooked) {
	r := newRig(t, env.Real(), disks{})
	mem := memdev.New(64)
	r.ok(blk.WriteSectors(r.e, mem, blktest.Pattern(8, 8, 1), 8, 0))
	h := &hooked{r.gate("O", mem), mem, nil, nil}
	r.disks["O"] = h
	return r, h
}

// TestExtentsWhileDataMovesUp: data that the origin gives to the snapshot before it is
// zeroed is reported as data throughout, even if the snapshot has no room for it.
func TestExtentsWhileDataMovesUp(t *testing.T) {
	for cow, want := range map[uint64]string{64: "-8 +8 -48", 16: "+64"} {
		r, h := newHooked(t)
		r.disks["C"] = memdev.New(cow)
		r.device("o", 64, "snapshot-origin O")
		r.device("s", 64, "snapshot O C P 8")
		h.before = func() { r.ok(blk.WriteSectors(r.e, r.dev("o"), make([]byte, 4096), 8, 0)) }
		r.wantExtents("s", want)
	}
}

// TestExtentsWhileDataMovesDown: data that is being merged is reported as data throughout.
func TestExtentsWhileDataMovesDown(t *testing.T) {
	r, h := newHooked(t)
	r.disks["C"] = memdev.New(64)
	r.device("s", 64, "snapshot O C P 8")
	r.ok(blk.WriteSectors(r.e, r.dev("s"), blktest.Pattern(32, 8, 2), 32, 0))
	r.suspend("s")
	r.ok(r.load("m", 64, "snapshot-merge O C P 8"))
	r.gates["O"].Shut()
	r.ok(r.resume("m"))
	h.after = func() {
		r.gates["O"].Open()
		m := r.snap("m").merge
		m.wait.Until(func() bool { return !m.isRunning() })
	}
	r.wantExtents("m", "-8 +8 -16 +8 -24")
	r.wantInfo("m", "16/64 16")
	r.wantExtents("m", "-8 +8 -16 +8 -24")
}
