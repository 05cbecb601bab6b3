package writecache_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/writecache"
)

var types = []*dm.Type{writecache.Type()}

// The sizes of the disks of a world: the cache has 24 blocks of 1 KiB.
const (
	bs         = 2 // sectors in a block
	blocks     = 24
	fastSize   = 2*(blocks+1) + 1
	originSize = 200
)

// world is a writecache with its disks, which outlive it: a is the origin, b the cache.
type world struct {
	testing.TB
	table string
	disks map[string]*memdev.Device
	wrap  func(string, blk.Device) blk.Device
	model *blktest.Model

	env     env.Env
	control *dm.Control
	dev     *dm.Device
	h       blk.Device
}

func newWorld(t testing.TB, table string) *world {
	return &world{TB: t, table: table, model: blktest.NewModel(originSize), wrap: func(_ string, d blk.Device) blk.Device { return d },
		disks: map[string]*memdev.Device{"a": memdev.New(originSize, memdev.Volatile), "b": memdev.New(fastSize, memdev.Volatile)}}
}

func tableOf(options string) string {
	return fmt.Sprintf("0 %d writecache s a b 1024 %s", originSize, options)
}

func (w *world) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return checkdev.New(w.wrap(name, kept{w.disks[name]}), checkdev.Options{}), dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}, nil
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// start makes the device.
func (w *world) start(e env.Env) error {
	w.env = e
	w.control = dm.NewControl(e, w, types...)
	var err error
	w.dev, err = w.control.Create("x", "", -1)
	w.must(err)
	if err := w.load(w.table); err != nil {
		return err
	}
	h, err := w.dev.Open(true)
	w.h = checkdev.New(h, checkdev.Options{})
	return err
}

func (w *world) load(table string) error {
	specs, err := dm.ParseTable(table)
	w.must(err)
	if err := w.dev.Load(specs, dm.Mode{Write: true}); err != nil {
		return err
	}
	return w.dev.Resume(context.Background(), false)
}

func (w *world) close() {
	if w.h != nil {
		w.must(w.h.Close())
		w.h = nil
	}
	w.must(w.control.Close())
}

func (w *world) write(sector, sectors, seed uint64, f blk.Flags) {
	op := w.model.Begin(sector, sectors, seed)
	err := blk.WriteSectors(w.env, w.h, blktest.Pattern(sector, sectors, seed), sector, f)
	w.model.End(op, blk.StatusOf(err), f&blk.FUA != 0)
}

func (w *world) discard(sector, sectors uint64) {
	op := w.model.BeginAny(sector, sectors)
	w.model.End(op, blk.StatusOf(blk.DiscardSectors(w.env, w.h, sector, sectors)), false)
}

func (w *world) flush() {
	token := w.model.FlushBegin()
	if blk.FlushDevice(w.env, w.h) == nil {
		w.model.FlushEnd(token)
	}
}

// read compares what can be read. In doubt what is not the newest may be there.
func (w *world) read(sector, sectors uint64, doubt bool) error {
	p := make([]byte, sectors*blk.SectorSize)
	if err := blk.ReadSectors(w.env, w.h, p, sector); err != nil {
		return err
	}
	check := w.model.Check
	if doubt {
		check = w.model.CheckAny
	}
	if err := check(p, sector); err != nil {
		w.Error(err)
	}
	return nil
}

func (w *world) message(text string) error {
	_, err := w.dev.Message(0, text)
	return err
}

func (w *world) status() *writecache.Status {
	w.Helper()
	s, err := writecache.ParseStatus(w.dev.Lines(dm.Info, false, 0)[0].Params)
	w.must(err)
	return s
}

// sleep lets time pass.
func sleep(e *env.Sim, d time.Duration) {
	over := false
	e.AfterFunc(d, func() { over = true })
	e.NewWait().Until(func() bool { return over })
}

// crash is the world after a power cut.
func (w *world) crash(seed uint64) *world {
	after := *w
	after.disks, after.h = map[string]*memdev.Device{}, nil
	after.wrap = func(_ string, d blk.Device) blk.Device { return d }
	for name, d := range w.disks {
		after.disks[name] = d.CrashClone(seed + uint64(name[0]))
	}
	after.model = w.model.Clone()
	after.model.Crash()
	return &after
}

// whole checks the metadata, then the content of a new start, and then that of the
// origin alone.
func (w *world) whole() {
	w.Helper()
	sim := env.NewStepped()
	w.check(sim)
	w.must(w.start(sim))
	w.must(w.read(0, originSize, false))
	w.must(w.message("flush"))
	if s := w.status(); s.Free != s.Blocks || s.Failed {
		w.Errorf("after the message flush: %v", s)
	}
	w.must(w.read(0, originSize, false))
	w.close()
	if r := w.check(sim); r.Committed != 0 || r.Uncommitted != 0 {
		w.Errorf("a clean cache has %+v", r)
	}
	p := make([]byte, originSize*blk.SectorSize)
	w.must(blk.ReadSectors(sim, w.disks["a"], p, 0))
	w.must(w.model.Check(p, 0))
}

func (w *world) check(e env.Env) *writecache.Report {
	w.Helper()
	r, err := writecache.Check(e, w.disks["b"], w.startSector())
	w.must(err)
	w.must(r.Err())
	return r
}

func (w *world) startSector() uint64 {
	l, err := writecache.ParseLine(dm.SplitWords(w.table)[3:])
	w.must(err)
	if l.StartSector == nil {
		return 0
	}
	return *l.StartSector
}
