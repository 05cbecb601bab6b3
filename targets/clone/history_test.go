package clone_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
	"udm/targets/clone"
	"udm/targets/clone/clonemeta"
)

// disks opens disks by name, wrapped by wrap: metadata a, destination b, source c.
type disks struct {
	mems map[string]*memdev.Device
	wrap func(blk.Device) blk.Device
}

const (
	sectors = 516 // of a device, whose last region is not a whole one
	block   = 4   // sectors
	blocks  = sectors / block
	origin  = 7 // the version that the source has
)

func newDisks(t *testing.T) *disks {
	t.Helper()
	d := &disks{map[string]*memdev.Device{}, func(d blk.Device) blk.Device { return d }}
	for _, name := range []string{"a", "b", "c"} {
		d.mems[name] = memdev.New(1024, memdev.Volatile)
	}
	if err := blk.WriteSectors(env.Real(), d.mems["c"], blktest.Pattern(0, sectors, origin), 0, blk.FUA); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *disks) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return kept{d.wrap(d.mems[name])}, dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}, nil
}

// crash is the disks after a power cut.
func (d *disks) crash(seed uint64) *disks {
	after := &disks{map[string]*memdev.Device{}, func(d blk.Device) blk.Device { return d }}
	for name, m := range d.mems {
		after.mems[name] = m.CrashClone(seed + uint64(name[0]))
	}
	return after
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

// device is a running device over disks, in a simulator.
type device struct {
	*dm.Device
	sim     *env.Sim
	control *dm.Control
}

// tables of histories: regions of two blocks and of eight.
var tables = []string{
	"0 516 clone a b c 8 0 4 hydration_threshold 3 hydration_batch_size 2",
	"0 516 clone a b c 32 1 no_hydration",
	"0 516 clone a b c 16 1 no_discard_passdown 2 hydration_threshold 100",
}

func start(d *disks, table string) (*device, error) {
	sim := env.NewStepped()
	c := dm.NewControl(sim, d, clone.Type())
	x, err := c.Create("x", "", -1)
	specs, _ := dm.ParseTable(table)
	if err == nil {
		err = x.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = x.Resume(context.Background(), false)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return &device{x, sim, c}, nil
}

func mustStart(t *testing.T, d *disks, table string) *device {
	t.Helper()
	x, err := start(d, table)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// content is what a block may hold.
type content struct {
	last     uint64          // the version that is read; 0: unknown
	may      map[uint64]bool // versions that may be there after a power cut
	anything bool            // it was discarded, and nothing else may be there for sure
}

// history does things at random, and knows what each block may hold.
type history struct {
	rng    *rand.Rand
	x      *device
	blocks [blocks]content
}

func newHistory(seed uint64, x *device) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 1)), x: x}
	for b := range h.blocks {
		h.blocks[b] = content{last: origin, may: map[uint64]bool{origin: true}}
	}
	return h
}

// step does one thing.
func (h *history) step(version uint64) {
	ctx := context.Background()
	if h.x.Status().Suspended && h.x.Resume(ctx, false) != nil {
		return
	}
	switch n := h.rng.IntN(20); {
	case n < 11:
		h.write(version)
	case n < 13:
		h.discard()
	case n < 16:
		h.flush()
	case n < 17:
		if h.x.Suspend(ctx, h.rng.IntN(2) == 0) == nil {
			_ = h.x.Resume(ctx, false)
		}
	case n < 18:
		words := []string{"enable_hydration", "disable_hydration", "hydration_threshold 2", "hydration_threshold 0", "hydration_batch_size 5"}
		_, _ = h.x.Message(0, words[h.rng.IntN(len(words))])
	default:
		h.x.sim.Advance(2e9)
	}
}

func (h *history) write(version uint64) {
	b := h.rng.IntN(blocks)
	n := min(1+h.rng.IntN(9), blocks-b)
	bio := &blk.Bio{Op: blk.Write, Sector: uint64(b) * block}
	if h.rng.IntN(6) == 0 {
		bio.Flags = blk.FUA
	}
	bio.SetData(blktest.Pattern(bio.Sector, uint64(n)*block, version))
	st := blk.Do(h.x.sim, h.x, bio)
	for i := b; i < b+n; i++ {
		c := &h.blocks[i]
		c.may[version] = true
		c.last = version
		switch {
		case st != blk.OK:
			c.last = 0 // one or the other
		case bio.Flags != 0:
			*c = content{last: version, may: map[uint64]bool{version: true}}
		}
	}
}

func (h *history) discard() {
	b := h.rng.IntN(blocks)
	n := min(1+h.rng.IntN(30), blocks-b)
	blk.Do(h.x.sim, h.x, &blk.Bio{Op: blk.Discard, Sector: uint64(b) * block, Sectors: uint64(n) * block})
	for i := b; i < b+n; i++ {
		h.blocks[i].last, h.blocks[i].anything = 0, true
	}
}

func (h *history) flush() {
	before := h.blocks
	if blk.FlushDevice(h.x.sim, h.x) != nil {
		return
	}
	for b, c := range before {
		if c.last > 0 {
			h.blocks[b] = content{last: c.last, may: map[uint64]bool{c.last: true}}
		}
	}
}

// verify reads all blocks of a device. exact: it has been running since the start.
func (h *history) verify(t *testing.T, e env.Env, d blk.Device, exact bool) {
	t.Helper()
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(e, d, p, 0); err != nil {
		t.Fatal(err)
	}
	for b := range h.blocks {
		c := &h.blocks[b]
		if exact && c.last == 0 || c.anything && c.last == 0 {
			continue
		}
		mine := p[b*block*blk.SectorSize:][:block*blk.SectorSize]
		for s := range block {
			v, known := blktest.SeedOf(mine[s*blk.SectorSize:][:blk.SectorSize], uint64(b*block+s))
			switch {
			case exact && (!known || v != c.last):
				t.Fatalf("block %d has version %d (%v), want %d", b, v, known, c.last)
			case !exact && !c.anything && (!known || !c.may[v]):
				t.Fatalf("block %d has version %d (%v), want one of %v", b, v, known, c.may)
			}
		}
	}
}

// settle takes what is there after a power cut for what has to stay there.
func (h *history) settle(t *testing.T) {
	t.Helper()
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(h.x.sim, h.x, p, 0); err != nil {
		t.Fatal(err)
	}
	for b := range h.blocks {
		mine := p[b*block*blk.SectorSize:][:block*blk.SectorSize]
		v, known := blktest.SeedOf(mine[:blk.SectorSize], uint64(b*block))
		if !known || !bytes.Equal(mine, blktest.Pattern(uint64(b*block), block, v)) {
			h.blocks[b] = content{may: map[uint64]bool{}, anything: true}
			continue
		}
		h.blocks[b] = content{last: v, may: map[uint64]bool{v: true}}
	}
}

// sound checks the metadata, and that the source is as it was.
func sound(t *testing.T, d *disks) {
	t.Helper()
	if _, err := clonemeta.Check(env.Real(), d.mems["a"]); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(env.Real(), d.mems["c"], p, 0); err != nil || !bytes.Equal(p, blktest.Pattern(0, sectors, origin)) {
		t.Fatal("the source has changed", err)
	}
}

// ends hydrates all of the device and closes it: then the destination alone has its
// content.
func (h *history) ends(t *testing.T, d *disks) {
	t.Helper()
	for _, m := range []string{"enable_hydration", "hydration_threshold 100"} {
		if _, err := h.x.Message(0, m); err != nil {
			t.Fatal(err)
		}
	}
	h.x.sim.Advance(5e9)
	s, err := clone.ParseStatus(h.x.Lines(dm.Info, false, 0)[0].Params)
	if err != nil || s.Hydrated != s.Regions {
		t.Fatalf("%v, %v", s, err)
	}
	h.verify(t, h.x.sim, h.x, true)
	if err := h.x.control.Close(); err != nil {
		t.Fatal(err)
	}
	sound(t, d)
	h.verify(t, env.Real(), d.mems["b"], true)
}

// TestPowerCuts cuts the power at random moments of random histories, several times in a
// row. What was flushed is there, and all else is what it was or what was written.
func TestPowerCuts(t *testing.T) {
	for i, table := range tables {
		for seed := range uint64(every(30, 3)) {
			t.Run(fmt.Sprint(i, seed), func(t *testing.T) {
				d := newDisks(t)
				h := newHistory(seed, mustStart(t, d, table))
				version := uint64(100)
				for cut := range uint64(4) {
					for range 5 + h.rng.IntN(60) {
						h.step(version)
						version++
					}
					h.verify(t, h.x.sim, h.x, true)
					d = d.crash(seed*10 + cut)
					sound(t, d)
					h.x = mustStart(t, d, table)
					h.verify(t, h.x.sim, h.x, false)
					h.settle(t)
				}
				h.ends(t, d)
			})
		}
	}
}

// TestEachFailingIO lets each I/O of the disks fail, alone and with all after it. What was
// acknowledged is read as long as the device runs; after a power cut there is what was
// flushed, and the rest of the source.
func TestEachFailingIO(t *testing.T) {
	for i, table := range tables {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := blktest.FailEvery(t, every(2, 11), func(t *testing.T, f *blktest.Failer) {
				d := newDisks(t)
				d.wrap = f.Wrap
				x, err := start(d, table)
				if err != nil {
					if !f.Failed() {
						t.Error(err)
					}
					return
				}
				h := newHistory(uint64(i)+3, x)
				for v := range uint64(40) {
					h.step(v + 100)
				}
				x.control.Close()
				for seed := range uint64(2) {
					after := d.crash(seed)
					sound(t, after)
					y := mustStart(t, after, table)
					h.verify(t, y.sim, y, false)
					if err := y.control.Close(); err != nil {
						t.Error(err)
					}
				}
			})
			t.Logf("%d I/Os", n)
		})
	}
}

// TestNoSpace lets the disks be full from each write on. Nothing is lost, and when there
// is space again the device goes on by itself.
func TestNoSpace(t *testing.T) {
	n := blktest.FullEach(t, every(2, 11), func(t *testing.T, f *blktest.Failer) {
		d := newDisks(t)
		d.wrap = f.Wrap
		x, err := start(d, tables[0])
		if err != nil {
			return
		}
		h := newHistory(5, x)
		for v := range uint64(30) {
			h.step(v + 100)
		}
		after := d.crash(1)
		sound(t, after)
		y := mustStart(t, after, tables[0])
		h.verify(t, y.sim, y, false)
		if err := y.control.Close(); err != nil {
			t.Error(err)
		}
		f.MakeSpace()
		h.x.sim.Advance(2e9)
		h.flush()
		h.ends(t, d)
	})
	t.Logf("%d writes", n)
}

// every is n, or less where time is short: with -short, and under the race detector.
func every(n, short int) int {
	if testing.Short() || invariants.Enabled {
		return short
	}
	return n
}

// TestRegionsBeforeBits cuts the power right after a commit that no flush has asked for: a
// region whose bit is durable is, too.
func TestRegionsBeforeBits(t *testing.T) {
	for seed := range uint64(20) {
		d := newDisks(t)
		h := newHistory(seed, mustStart(t, d, tables[1]))
		for v := range uint64(5) {
			h.write(100 + v)
		}
		h.x.sim.Advance(2e9)
		d = d.crash(seed)
		h.x = mustStart(t, d, tables[1])
		h.verify(t, h.x.sim, h.x, false)
	}
}
