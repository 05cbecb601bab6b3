package snapshot

import (
	"flag"
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

var (
	modelOps   = flag.Int("modelops", 10000, "reads and writes of a seed of TestModel")
	modelSeeds = flag.Int("modelseeds", 2, "seeds of TestModel")
)

// modelled is a device with the model of its content. A writer locks the part of
// it that it writes to.
type modelled struct {
	dev   *dm.Device
	parts []sync.Mutex
	size  uint64

	mu    sync.Mutex
	model *blktest.Model // guarded by mu
	seed  uint64         // guarded by mu
}

const partLen = 64

func newModelled(d *dm.Device, size uint64, m *blktest.Model) *modelled {
	return &modelled{dev: d, size: size, parts: make([]sync.Mutex, size/partLen), model: m, seed: 1}
}

func (m *modelled) write(rng *rand.Rand) error {
	i := rng.IntN(len(m.parts))
	m.parts[i].Lock()
	defer m.parts[i].Unlock()
	off := rng.Uint64N(partLen)
	n := 1 + rng.Uint64N(min(partLen-off, 24))
	if rng.IntN(3) == 0 {
		off, n = off/8*8, 8
	}
	sector := uint64(i)*partLen + off
	m.mu.Lock()
	m.seed++
	seed := m.seed
	op := m.model.Begin(sector, n, seed)
	m.mu.Unlock()
	err := blk.WriteSectors(env.Real(), m.dev, blktest.Pattern(sector, n, seed), sector, 0)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.model.End(op, blk.StatusOf(err), false)
	return err
}

func (m *modelled) read(rng *rand.Rand) error {
	i := rng.IntN(len(m.parts))
	m.parts[i].Lock()
	defer m.parts[i].Unlock()
	p := make([]byte, partLen*512)
	sector := uint64(i) * partLen
	if err := blk.ReadSectors(env.Real(), m.dev, p, sector); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.model.Check(p, sector)
}

func (m *modelled) all() error {
	p := make([]byte, m.size*512)
	if err := blk.ReadSectors(env.Real(), m.dev, p, 0); err != nil {
		return err
	}
	return m.model.Check(p, 0)
}

// TestModel runs eight writers on an origin and its snapshots, and merges one snapshot
// meanwhile.
func TestModel(t *testing.T) {
	for seed := range uint64(*modelSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

func runModel(t *testing.T, seed uint64) {
	blktest.Leaks(t)
	const size = 8192
	r := newRig(t, env.Real(), disks{})
	o := memdev.New(size)
	r.disks["O"] = o
	r.ok(blk.WriteSectors(r.e, o, blktest.Pattern(0, size, 1), 0, 0))
	ms := []*modelled{newModelled(r.device("o", size, "snapshot-origin O"), size, fresh(size))}
	for i, kind := range []string{"P 8", "N 4", "PO 32"} {
		n := fmt.Sprintf("D%d", i)
		r.disks[n] = memdev.New(4 * size)
		ms = append(ms, newModelled(r.device(n, size, "snapshot O "+n+" "+kind), size, fresh(size)))
	}
	r.snap("D1").registry.threshold.Set(uint32(1 + seed%5)) // some are held back
	hammer(t, seed, *modelOps/2, ms)
	for i, m := range ms[1:] {
		s := r.snap(fmt.Sprintf("D%d", i))
		s.mustBeIdle(t)
		wantCount(t, s, m.dev.Lines(dm.Info, false, 0)[0].Params)
	}
	mergeOne(r, ms)
	hammer(t, seed+1000, *modelOps/2, ms[1:])
	m := r.snap("m").merge
	m.wait.Until(func() bool { return !m.isRunning() })
	r.wantInfo("m", fmt.Sprintf("16/%d 16", 4*size))
	p := make([]byte, size*512)
	r.ok(blk.ReadSectors(r.e, o, p, 0))
	r.ok(ms[1].model.Check(p, 0))
	for _, m := range ms[1:] {
		r.ok(m.all())
	}
}

// mergeOne removes the origin and merges the first snapshot.
func mergeOne(r *rig, ms []*modelled) {
	r.remove("o")
	r.suspend("D0")
	r.ok(r.load("m", ms[0].size, "snapshot-merge O D0 P 8"))
	r.ok(r.resume("m"))
	r.remove("D0")
	ms[1].dev = r.dev("m")
}

func fresh(size uint64) *blktest.Model {
	m := blktest.NewModel(size)
	m.Write(0, size, 1, true)
	return m
}

func hammer(t *testing.T, seed uint64, ops int, ms []*modelled) {
	const workers = 8
	var wg sync.WaitGroup
	for w := range uint64(workers) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, w))
			for n := 0; n < ops/workers && !t.Failed(); n++ {
				m := ms[rng.IntN(len(ms))]
				do := m.write
				if rng.IntN(3) == 0 {
					do = m.read
				}
				if err := do(rng); err != nil {
					t.Errorf("seed %d, %v: %v", seed, m.dev, err)
				}
			}
		})
	}
	wg.Wait()
}

// wantCount compares the status with what the table holds.
func wantCount(t *testing.T, s *snapshot, info string) {
	t.Helper()
	n := uint64(0)
	b := s.body.Load()
	b.complete.all(func(uint64, uint64) { n++ })
	var allocated, total, metadata uint64
	if _, err := fmt.Sscanf(info, "%d/%d %d", &allocated, &total, &metadata); err != nil {
		t.Fatal(info, err)
	}
	if chunk := b.mask + 1; allocated != n*chunk+metadata {
		t.Errorf("status %s with %d chunks", info, n)
	}
}
