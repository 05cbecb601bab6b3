package mirror_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
	"udm/targets/mirror"
)

// The device of histories: 13 regions, the last one of 4 sectors, legs a, b and d, and the
// log on c.
const (
	sectors = 100
	region  = 8
	regions = 13
)

var offsets = map[string]uint64{"a": 0, "b": 4, "d": 9}

const (
	twoLegs   = "0 100 mirror disk 2 c 8 2 a 0 b 4"
	handled   = twoLegs + " 1 handle_errors"
	threeLegs = "0 100 mirror disk 2 c 8 3 a 0 b 4 d 9 1 handle_errors"
)

// world is a mirror on disks with volatile caches, and what it has to hold.
type world struct {
	*testing.T
	table string
	legs  []string
	mems  map[string]*memdev.Device
	wrap  func(name string, d blk.Device) blk.Device
	model *blktest.Model

	sim     *env.Sim
	control *dm.Control
	dev     *dm.Device
}

func newWorld(t *testing.T, table string) *world {
	w := &world{T: t, table: table, legs: []string{"a", "b"}, mems: map[string]*memdev.Device{}, model: blktest.NewModel(sectors)}
	if table == threeLegs {
		w.legs = append(w.legs, "d")
	}
	for _, name := range append([]string{"c"}, w.legs...) {
		w.mems[name] = memdev.New(128, memdev.Volatile)
	}
	return w
}

func (w *world) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	var d blk.Device = w.mems[name]
	if w.wrap != nil {
		d = w.wrap(name, d)
	}
	return kept{d}, dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}, nil
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) start() error {
	w.sim = env.NewStepped()
	w.control = dm.NewControl(w.sim, w, mirror.Type())
	d, err := w.control.Create("x", "", -1)
	w.must(err)
	w.dev = d
	return w.load()
}

func (w *world) load() error {
	specs, err := dm.ParseTable(w.table)
	w.must(err)
	if err := w.dev.Load(specs, dm.Mode{Write: true}); err != nil {
		return err
	}
	return w.dev.Resume(context.Background(), false)
}

// crash is the world after a power cut.
func (w *world) crash(seed uint64) *world {
	after := &world{T: w.T, table: w.table, legs: w.legs, mems: map[string]*memdev.Device{}, model: w.model.Clone()}
	for name, m := range w.mems {
		after.mems[name] = m.CrashClone(seed + uint64(name[0]))
	}
	after.model.Crash()
	return after
}

func (w *world) status() *mirror.Status {
	s, err := mirror.ParseStatus(w.dev.Lines(dm.Info, false, 0)[0].Params)
	w.must(err)
	return s
}

func (w *world) inSync() bool { return w.status().Synced == regions }

// leg is the content of a leg.
func (w *world) leg(name string) []byte {
	p := make([]byte, sectors*blk.SectorSize)
	w.must(blk.ReadSectors(env.Real(), w.mems[name], p, offsets[name]))
	return p
}

// clean reads from the log which regions are clean; nil: there is no log yet.
func (w *world) clean() (clean []bool) {
	p := make([]byte, 1536)
	w.must(blk.ReadSectors(env.Real(), w.mems["c"], p, 0))
	if string(p[:4]) != "rRiM" {
		return make([]bool, regions)
	}
	if n := binary.LittleEndian.Uint64(p[8:]); n != regions || p[4] != 2 {
		w.Errorf("the log has %d regions, version %d", n, p[4])
	}
	bits := binary.LittleEndian.Uint64(p[1024:])
	if bits>>regions != 0 {
		w.Errorf("the log has bits for more regions: %x", bits)
	}
	for i := range regions {
		clean = append(clean, bits>>i&1 != 0)
	}
	return clean
}

// whole checks the disks while nothing uses them: regions that the log has as clean are alike
// on all legs.
func (w *world) whole() {
	w.Helper()
	first := w.leg("a")
	for i, clean := range w.clean() {
		from, to := i*region*blk.SectorSize, min((i+1)*region, sectors)*blk.SectorSize
		for _, name := range w.legs[1:] {
			if clean && !bytes.Equal(w.leg(name)[from:to], first[from:to]) {
				w.Errorf("region %d is clean, and differs on leg %s", i, name)
			}
		}
	}
}

// eachLeg checks that any leg alone has what a user may find.
func (w *world) eachLeg() {
	w.Helper()
	for _, name := range w.legs {
		if err := w.model.Clone().Check(w.leg(name), 0); err != nil {
			w.Errorf("leg %s alone: %v", name, err)
		}
	}
}

// recovers starts the mirror again: it becomes in sync, has the right content, and so has
// each leg.
func (w *world) recovers() {
	w.Helper()
	w.whole()
	w.must(w.start())
	w.sim.Run()
	if !w.inSync() {
		w.Errorf("it does not become in sync: %v", w.status())
	}
	w.read(0, sectors)
	w.must(w.control.Close())
	w.whole()
	for i, clean := range w.clean() {
		if !clean {
			w.Errorf("region %d is dirty after the end", i)
		}
	}
	w.eachLeg()
}

func (w *world) read(sector, n uint64) {
	w.Helper()
	b := &blk.Bio{Sector: sector}
	b.SetData(make([]byte, n*blk.SectorSize))
	if w.do(b) == blk.OK {
		if err := w.model.Check(b.Bufs[0], sector); err != nil {
			w.Error(err)
		}
	}
}

// do carries out a bio. If the mirror holds it, the device is suspended and resumed.
func (w *world) do(b *blk.Bio) blk.Status {
	ended := false
	b.End = func(*blk.Bio) { ended = true }
	w.dev.Submit(b)
	w.sim.Run()
	for range 3 {
		if ended {
			return b.Status()
		}
		w.pause(false)
	}
	w.Fatalf("%v does not end: %v", b, w.status())
	return blk.IOErr
}

func (w *world) pause(noflush bool) {
	w.must(w.dev.Suspend(context.Background(), noflush))
	w.must(w.dev.Resume(context.Background(), false))
	w.sim.Run()
}

func (w *world) write(sector, n, seed uint64, flags blk.Flags) {
	b := &blk.Bio{Op: blk.Write, Flags: flags, Sector: sector}
	b.SetData(blktest.Pattern(sector, n, seed))
	op := w.model.Begin(sector, n, seed)
	w.model.End(op, w.do(b), flags&blk.FUA != 0)
}

func (w *world) discard(sector, n uint64) {
	op := w.model.BeginAny(sector, n)
	w.model.End(op, w.do(&blk.Bio{Op: blk.Discard, Sector: sector, Sectors: n}), false)
}

func (w *world) flush() {
	token := w.model.FlushBegin()
	if w.do(&blk.Bio{Op: blk.Flush}) == blk.OK {
		w.model.FlushEnd(token)
	}
}

// step does one thing.
func (w *world) step(rng *rand.Rand, seed uint64) {
	at := rng.Uint64N(sectors)
	n := min(1+rng.Uint64N(12), sectors-at)
	switch k := rng.IntN(20); {
	case k < 9:
		w.write(at, n, seed, []blk.Flags{0, 0, blk.FUA}[rng.IntN(3)])
	case k < 13:
		w.read(at, n)
	case k < 16:
		w.flush()
	case k < 17:
		w.discard(at, n)
	case k < 18:
		w.pause(rng.IntN(2) == 0)
	case k < 19:
		_ = w.load() // with the same table
		w.sim.Run()
	default:
		w.sim.Advance(2e9)
	}
}

// history does things before the mirror is in sync for the first time, and after it.
func (w *world) history(seed uint64, steps int) {
	rng := rand.New(rand.NewPCG(seed, 3))
	if err := w.start(); err != nil {
		w.dev = nil
		return
	}
	for i := range steps {
		w.step(rng, seed*1000+uint64(i)+1)
	}
}

// TestPowerCuts cuts the power whenever a disk has done something.
func TestPowerCuts(t *testing.T) {
	for i, table := range []string{twoLegs, threeLegs} {
		for seed := range uint64(every(12, 1)) {
			t.Run(fmt.Sprint(i, seed), func(t *testing.T) {
				w := newWorld(t, table)
				count, states := uint64(0), 0
				w.wrap = func(_ string, d blk.Device) blk.Device {
					return &watched{d, func() {
						if count++; count%uint64(every(1, 7)) == 0 {
							states++
							w.cut(count)
						}
					}}
				}
				w.history(seed, 40)
				w.must(w.control.Close())
				w.whole()
				if states < 10 {
					t.Errorf("only %d states", states)
				}
			})
		}
	}
}

// cut checks the state after a power cut at this moment.
func (w *world) cut(seed uint64) {
	after := w.crash(seed)
	if w.dev != nil && !w.dev.Status().Suspended && w.inSync() {
		after.eachLeg()
	}
	after.recovers()
}

// watched calls done after each write and flush.
type watched struct {
	blk.Device
	done func()
}

func (d *watched) Submit(b *blk.Bio) {
	if b.Op == blk.Read {
		d.Device.Submit(b)
		return
	}
	end := b.End
	b.End = func(b *blk.Bio) { d.done(); b.End = end; end(b) }
	d.Device.Submit(b)
}

// TestEachFailingIO lets each I/O of the disks fail, alone and with all after it. With
// handle_errors nothing is acknowledged that a restart would take back.
func TestEachFailingIO(t *testing.T) {
	for i, table := range []string{handled, threeLegs} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			n := blktest.FailEvery(t, every(1, 13), func(t *testing.T, f *blktest.Failer) {
				w := newWorld(t, table)
				w.wrap = func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }
				w.history(5, 30)
				w.must(w.control.Close())
				if f.Failed() {
					w.model.Doubt()
				}
				after := w.crash(1)
				after.wrap = nil
				after.recovers()
			})
			t.Logf("%d I/Os", n)
		})
	}
}

// TestNoSpace lets the disks be full from each write on. When there is space again, all goes
// on by itself.
func TestNoSpace(t *testing.T) {
	n := blktest.FullEach(t, every(1, 13), func(t *testing.T, f *blktest.Failer) {
		w := newWorld(t, handled)
		w.wrap = func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }
		w.history(6, 25)
		f.MakeSpace()
		w.sim.Advance(3e9)
		w.sim.Run()
		w.write(5, 20, 7777, blk.FUA)
		w.read(0, sectors)
		if s := w.status(); s.Synced != regions || s.LogHealth != 'A' || s.Legs[0].Health != 'A' || s.Legs[1].Health != 'A' {
			t.Errorf("after there was no space: %v", s)
		}
		after := w.crash(1)
		w.must(w.control.Close())
		after.wrap = nil
		after.recovers()
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
