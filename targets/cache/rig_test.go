package cache_test

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
	"udm/targets/cache/cachetools"
)

// The sizes of the disks of a world.
const (
	metaSectors  = 1024
	cacheBlocks  = 6
	originBlocks = 16
	originSize   = originBlocks*bs + 10
)

// world is a cache with its disks, which outlive it.
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
		disks: map[string]*memdev.Device{"a": memdev.New(metaSectors, memdev.Volatile), "b": memdev.New(cacheBlocks*bs, memdev.Volatile), "c": memdev.New(originSize, memdev.Volatile)}}
}

func tableOf(features string) string {
	return fmt.Sprintf("0 %d cache a b c %d %s", originSize, bs, features)
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

// start makes the cache.
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

// close ends the cache.
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

// whole checks the metadata, and then the content of a new start.
func (w *world) whole() {
	w.Helper()
	sim := env.NewStepped()
	w.must(cachetools.ClearNeedsCheck(sim, w.disks["a"]))
	w.check(sim)
	w.must(w.start(sim))
	w.must(w.read(0, originSize, false))
	w.close()
	w.check(sim)
}

func (w *world) check(e env.Env) {
	w.Helper()
	r, err := cachetools.Check(e, w.disks["a"], cachetools.CheckOptions{})
	w.must(err)
	w.must(r.Err())
}
