package multipath_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/multipath"
)

func (b *bench) status() *multipath.Status {
	b.Helper()
	s, err := multipath.ParseStatus(b.d.Lines(dm.Info, false, 0)[0].Params)
	b.Must(err)
	return s
}

// ways is the opener of paths to one disk: wrap makes each of them.
type ways struct {
	disk *memdev.Device
	wrap func(name string, d blk.Device) blk.Device
}

func (w *ways) Open(name string, _ bool) (blk.Device, dm.Number, error) {
	return kept{w.wrap(name, w.disk)}, dm.Number{Major: 7, Minor: uint32(name[0] - 'a')}, nil
}

type kept struct{ blk.Device }

func (kept) Close() error { return nil }

// run makes a running device.
func (w *ways) run(t *testing.T, e env.Env, table string) (*dm.Control, *dm.Device) {
	c := dm.NewControl(e, w, multipath.Type())
	d, err := c.Create("x", "", -1)
	specs, wrong := dm.ParseTable(table)
	if err == nil && wrong == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil || wrong != nil {
		t.Fatal(err, wrong)
	}
	return c, d
}

// TestEachFailingIO lets each I/O of the paths fail. One failure is not seen; if all fail
// from then on, that is told.
func TestEachFailingIO(t *testing.T) {
	n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		sim := env.NewStepped()
		w := &ways{memdev.New(64, memdev.Volatile), func(_ string, d blk.Device) blk.Device { return f.Wrap(d) }}
		c, d := w.run(t, sim, table("", "ab"))
		m, failed := blktest.NewModel(64), false
		do := func(b *blk.Bio) blk.Status {
			st := blk.Do(sim, d, b)
			failed = failed || st != blk.OK
			return st
		}
		write := func(sector, sectors, seed uint64, flags blk.Flags) {
			b := &blk.Bio{Op: blk.Write, Flags: flags, Sector: sector}
			b.SetData(blktest.Pattern(sector, sectors, seed))
			o := m.Begin(sector, sectors, seed)
			m.End(o, do(b), flags&blk.FUA != 0)
		}
		write(0, 32, 1, 0)
		token := m.FlushBegin()
		if do(&blk.Bio{Op: blk.Flush}) == blk.OK {
			m.FlushEnd(token)
		}
		write(16, 32, 2, blk.FUA)
		o := m.Begin(0, 8, 0)
		m.End(o, do(&blk.Bio{Op: blk.WriteZeroes, Sectors: 8}), false)
		o = m.BeginAny(60, 4)
		m.End(o, do(&blk.Bio{Op: blk.Discard, Sector: 60, Sectors: 4}), false)
		write(8, 8, 3, blk.Preflush)
		b := &blk.Bio{}
		b.SetData(make([]byte, 64*blk.SectorSize))
		if do(b) == blk.OK {
			if err := m.Check(b.Bufs[0], 0); err != nil {
				t.Error(err)
			}
		}
		if want := f.Failed() && f.Sticky(); failed != want {
			t.Errorf("%v: told %v", f, failed)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%d I/Os", n)
}

// shaky is a path on which some I/Os fail, before or after they have happened.
type shaky struct {
	blk.Device
	broken *atomic.Bool
	mu     sync.Mutex
	rng    *rand.Rand
}

func (d *shaky) Submit(b *blk.Bio) {
	d.mu.Lock()
	k := d.rng.IntN(100)
	d.mu.Unlock()
	switch {
	case !d.broken.Load() && k > 0:
		d.Device.Submit(b)
	case k%2 == 0:
		c := &blk.Bio{}
		c.CloneFrom(b)
		c.End = func(*blk.Bio) { b.Complete(blk.Offline) }
		d.Device.Submit(c)
	default:
		b.Complete(blk.IOErr)
	}
}

// TestThreads: several threads use a device whose paths fail and come back, while it is
// suspended and given other tables. No error is seen.
func TestThreads(t *testing.T) {
	rounds := 300
	if testing.Short() {
		rounds = 40
	}
	broken := map[string]*atomic.Bool{"a": {}, "b": {}, "c": {}}
	w := &ways{memdev.New(64), func(name string, d blk.Device) blk.Device {
		return &shaky{Device: d, broken: broken[name], rng: rand.New(rand.NewPCG(uint64(name[0]), 1))}
	}}
	selectors := []string{"round-robin 0", "queue-length 0", "service-time 0", "historical-service-time 1 900"}
	tableOf := func(i int) string {
		return "0 64 multipath 1 queue_if_no_path 0 2 1 " + selectors[i%4] + " 2 0 a b " + selectors[i/4%4] + " 1 0 c"
	}
	c, d := w.run(t, env.Real(), tableOf(0))
	h, err := d.Open(true)
	if err != nil {
		t.Fatal(err)
	}
	l := blktest.StartLoad(t, checkdev.New(h, checkdev.Options{}), 64, false)
	rng := rand.New(rand.NewPCG(7, 7))
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	message := func(text string) {
		if _, err := d.Message(0, text); dm.ErrnoOf(err) != syscall.EBUSY { // suspended
			must(err)
		}
	}
	heal := func() {
		for _, name := range []string{"a", "b", "c"} {
			message("reinstate_path " + name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var healer sync.WaitGroup
	healer.Go(func() { // instead of multipathd
		for ctx.Err() == nil {
			nr := d.Status().EventNr
			heal()
			_ = d.Wait(ctx, nr)
		}
	})
	for i := range rounds {
		name := string(rune('a' + rng.IntN(3)))
		broken[name].Store(true)
		l.More(5)
		message("fail_path " + name)
		broken[name].Store(false)
		switch i % 8 {
		case 3:
			message("switch_group 2")
		case 5:
			must(d.Suspend(t.Context(), true))
			must(d.Resume(t.Context(), false))
		case 7:
			specs, _ := dm.ParseTable(tableOf(i))
			must(d.Load(specs, dm.Mode{Write: true}))
			must(d.Suspend(t.Context(), true))
			must(d.Resume(t.Context(), false))
		}
		heal() // what the healer was refused while the device was suspended
	}
	l.Stop()
	cancel()
	healer.Wait()
	must(l.D.Close())
	must(c.Close())
}
