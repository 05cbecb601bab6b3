package era_test

import (
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
	"udm/targets/era"
	"udm/targets/era/eratools"
)

func simOf() env.Env { return env.Real() }

// disks opens disks by name, wrapped by wrap.
type disks struct {
	mems map[string]*memdev.Device
	wrap func(blk.Device) blk.Device
}

func newDisks() *disks {
	return &disks{map[string]*memdev.Device{"a": memdev.New(2048, memdev.Volatile), "b": memdev.New(2048, memdev.Volatile)}, func(d blk.Device) blk.Device { return d }}
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

func start(d *disks) (*device, error) {
	sim := env.NewStepped()
	c := dm.NewControl(sim, d, era.Type())
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

func mustStart(t *testing.T, d *disks) *device {
	t.Helper()
	x, err := start(d)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

const blocks = 65

// history does things at random, and knows in which era each block was written last.
type history struct {
	rng  *rand.Rand
	x    *device
	min  [blocks]uint32 // the era of the last write that went well, at least
	max  [blocks]uint32 // the era of the last write that was tried, at most
	data [blocks]uint64 // version of the block; 0: unknown
	at   uint32         // the running era
}

func newHistory(seed uint64, x *device) *history {
	h := &history{rng: rand.New(rand.NewPCG(seed, 1)), x: x}
	h.look()
	return h
}

// look reads the running era from the status. It reports whether the metadata are usable.
func (h *history) look() bool {
	s, err := era.ParseStatus(h.x.Lines(dm.Info, false, 0)[0].Params)
	if err != nil || s.Failed {
		return false
	}
	h.at = s.Era
	return true
}

// step does one thing. It fails only if a disk does.
func (h *history) step(version uint64) {
	if h.x.Status().Suspended && h.x.Resume(context.Background(), false) != nil {
		return
	}
	h.look()
	switch n := h.rng.IntN(20); {
	case n < 13:
		h.write(blk.Write, h.rng.IntN(blocks-1), 1, version)
	case n < 14:
		b := h.rng.IntN(blocks - 4)
		h.write(blk.Discard, b, 1+h.rng.IntN(3), 0)
	case n < 15:
		_ = blk.FlushDevice(h.x.sim, h.x)
	case n < 16:
		if h.x.Suspend(context.Background(), h.rng.IntN(2) == 0) == nil {
			_ = h.x.Resume(context.Background(), false)
		}
	default:
		_, _ = h.x.Message(0, []string{"checkpoint", "checkpoint", "take_metadata_snap", "drop_metadata_snap"}[n-16])
	}
	h.x.sim.Run()
	h.look()
}

func (h *history) write(op blk.Op, b, n int, version uint64) {
	bio := &blk.Bio{Op: op, Sector: uint64(b) * bs, Sectors: uint64(n) * bs}
	if op == blk.Write {
		if h.rng.IntN(2) == 0 {
			bio.Flags = blk.FUA
		}
		bio.SetData(blktest.Pattern(bio.Sector, bs, version))
	}
	st := blk.Do(h.x.sim, h.x, bio)
	for i := b; i < b+n; i++ {
		h.max[i], h.data[i] = h.at, version
		if st == blk.OK {
			h.min[i] = h.at
		} else {
			h.data[i] = 0
		}
	}
}

// verify compares the metadata on a disk with what is known.
func (h *history) verify(t *testing.T, d blk.Device) {
	t.Helper()
	sound(t, d)
	latest := latestOf(t, d)
	for b := range blocks {
		if got := latest[b]; got < h.min[b] || got > h.max[b] {
			t.Errorf("block %d was last written in era %d to %d, the metadata say %d", b, h.min[b], h.max[b], got)
		}
	}
}

// latestOf is the last era of each block, as asked era by era.
func latestOf(t *testing.T, d blk.Device) (latest [blocks]uint32) {
	t.Helper()
	rep, err := eratools.Check(env.Real(), d, true)
	if err != nil {
		t.Fatal(err)
	}
	for n := uint32(1); n <= rep.Super.Era; n++ {
		err := eratools.WrittenSince(env.Real(), d, n, false, func(begin, end uint32) error {
			for b := begin; b < end; b++ {
				latest[b] = n
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return latest
}

// TestPowerCuts cuts the power at random moments of random histories, several times in a
// row.
func TestPowerCuts(t *testing.T) {
	for seed := range uint64(every(40, 3)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := newDisks()
			h := newHistory(seed, mustStart(t, d))
			version := uint64(1)
			for cut := range uint64(4) {
				for range 5 + h.rng.IntN(60) {
					h.step(version)
					version++
				}
				d = d.crash(seed*10 + cut)
				h.verify(t, d.mems["a"])
				h.x = mustStart(t, d)
				h.look()
			}
			if err := h.x.control.Close(); err != nil {
				t.Fatal(err)
			}
			h.verify(t, d.mems["a"])
		})
	}
}

// TestEachFailingIO lets each I/O of both disks fail, alone and with all after it. No write
// that went well is missing in the metadata, while the device runs and after a power cut.
func TestEachFailingIO(t *testing.T) {
	n := blktest.FailEvery(t, every(1, 5), func(t *testing.T, f *blktest.Failer) {
		d := newDisks()
		d.wrap = f.Wrap
		x, err := start(d)
		if err != nil {
			if !f.Failed() {
				t.Error(err)
			}
			return
		}
		h := newHistory(7, x)
		for v := range uint64(40) {
			h.step(v + 1)
		}
		after := d.crash(2)
		h.verify(t, after.mems["a"])
		x.control.Close()
		h.verify(t, d.crash(3).mems["a"])
		h.x = mustStart(t, after)
		h.look()
		for v := range uint64(10) {
			h.step(v + 100)
		}
		h.verify(t, after.crash(4).mems["a"])
		if err := h.x.control.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d I/Os", n)
}

// TestNoSpace lets the disks be full from each write on. Nothing is lost, and when there
// is space again the device goes on by itself.
func TestNoSpace(t *testing.T) {
	n := blktest.FullEach(t, every(1, 5), func(t *testing.T, f *blktest.Failer) {
		d := newDisks()
		d.wrap = f.Wrap
		x, err := start(d)
		if err != nil {
			return
		}
		h := newHistory(8, x)
		for v := range uint64(30) {
			h.step(v + 1)
		}
		h.verify(t, d.crash(2).mems["a"])
		f.MakeSpace()
		if x.Status().Suspended {
			if err := x.Resume(context.Background(), false); err != nil {
				t.Fatal(err)
			}
		}
		if !h.look() {
			t.Fatal("the metadata have failed for want of space")
		}
		h.write(blk.Write, 3, 1, 99)
		if h.min[3] != h.at || h.data[3] != 99 {
			t.Error("a write fails though there is space")
		}
		h.verify(t, d.crash(3).mems["a"])
		if err := x.control.Close(); err != nil {
			t.Error(err)
		}
		h.verify(t, d.mems["a"])
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
