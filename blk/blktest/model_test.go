package blktest_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/env"
)

func TestCheckNamesTheFirstWrongSector(t *testing.T) {
	p := blktest.Pattern(100, 4, 5)
	if err := blktest.Check(p, 100, 5); err != nil {
		t.Fatal(err)
	}
	blktest.Fill(p[2*512+8:2*512+16], 7, 3)
	err := blktest.Check(p, 100, 5)
	if err == nil || !strings.Contains(err.Error(), "sector 102 byte 8: found") || !strings.Contains(err.Error(), "(seed 3 of sector 7 byte 0)") {
		t.Fatal(err)
	}
	if err := blktest.Check(make([]byte, 512), 100, 0); err != nil {
		t.Fatal(err)
	}
	if blktest.Check(blktest.Pattern(0, 1, 1), 1, 1) == nil {
		t.Fatal("data of another sector passes")
	}
	if s, ok := blktest.SeedOf(blktest.Pattern(9, 1, 77), 9); s != 77 || !ok {
		t.Fatal(s, ok)
	}
	if _, ok := blktest.SeedOf(p[2*512:3*512], 102); ok {
		t.Fatal("mixed sector has a seed")
	}
}

func legalSeeds(m *blktest.Model, sector uint64, upTo uint64) (legal []uint64) {
	for s := range upTo {
		if m.Clone().Check(blktest.Pattern(sector, 1, s), sector) == nil {
			legal = append(legal, s)
		}
	}
	return legal
}

func expect(t *testing.T, m *blktest.Model, want ...uint64) {
	t.Helper()
	got := legalSeeds(m, 0, 10)
	if len(got) != len(want) {
		t.Fatalf("legal %v, want %v", got, want)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("legal %v, want %v", got, want)
		}
	}
}

func TestModelKnowsWhatAPowerCutMayLeave(t *testing.T) {
	m := blktest.NewModel(4)
	expect(t, m, 0)
	m.Write(0, 1, 1, false)
	m.Write(0, 1, 2, false)
	expect(t, m, 2)
	c := m.Clone()
	c.Crash()
	expect(t, c, 0, 1, 2)
	if err := c.Check(blktest.Pattern(0, 1, 1), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, c, 1)
	c.Crash()
	expect(t, c, 1)

	// A flush covers what ended before it began.
	f := m.FlushBegin()
	m.Write(0, 1, 3, false)
	o := m.Begin(0, 1, 4)
	m.FlushEnd(f)
	c = m.Clone()
	c.Crash()
	expect(t, c, 2, 3, 4)

	// A failed write may or may not be there, with or without a power cut.
	m.End(o, blk.IOErr, false)
	expect(t, m, 2, 3, 4)
	if err := m.Check(blktest.Pattern(0, 1, 4), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, m, 4)
	m.Crash()
	expect(t, m, 2, 3, 4)

	m.Write(0, 1, 5, true)
	m.Crash()
	expect(t, m, 5)

	m.Discard(0, 1)
	expect(t, m, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
}

func TestDiscardIsNotSettledByTheOldData(t *testing.T) {
	everything := []uint64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}
	old := blktest.Pattern(0, 1, 1)
	for name, discard := range map[string]func(*blktest.Model){
		"ended":     func(m *blktest.Model) { m.Discard(0, 1) },
		"in flight": func(m *blktest.Model) { m.BeginAny(0, 1) },
		"failed":    func(m *blktest.Model) { m.End(m.BeginAny(0, 1), blk.IOErr, false) },
	} {
		t.Run(name, func(t *testing.T) {
			m := blktest.NewModel(1)
			m.Write(0, 1, 1, true)
			discard(m)
			m.Crash()
			if err := m.Check(old, 0); err != nil {
				t.Fatal(err)
			}
			expect(t, m, everything...)
			m.Write(0, 1, 2, false)
			expect(t, m, 2)
			m.Flush()
			m.Crash()
			expect(t, m, 2)
		})
	}
}

func TestDiscardThatIsOverwrittenSettles(t *testing.T) {
	m := blktest.NewModel(1)
	m.Discard(0, 1)
	m.Write(0, 1, 1, false)
	m.Flush()
	m.Write(0, 1, 2, false)
	m.Crash()
	expect(t, m, 1, 2)
	if err := m.Check(blktest.Pattern(0, 1, 1), 0); err != nil {
		t.Fatal(err)
	}
	expect(t, m, 1)
}

// crashRun does random I/O with power cuts on a volatile memdev and compares it
// with the model. With loseFlush it omits the device's flush, which the model
// must notice.
func crashRun(seed uint64, loseFlush bool) error {
	e, rng := env.Real(), rand.New(rand.NewPCG(seed, 1))
	const size = 64
	d, m := memdev.New(size, memdev.Volatile), blktest.NewModel(size)
	for i := uint64(1); i < 400; i++ {
		s := rng.Uint64N(size)
		n := 1 + rng.Uint64N(min(8, size-s))
		switch rng.IntN(10) {
		case 0:
			if !loseFlush {
				blk.FlushDevice(e, d)
			}
			m.Flush()
		case 1:
			d = d.CrashClone(rng.Uint64())
			m.Crash()
		case 2:
			blk.ZeroSectors(e, d, s, n)
			m.Zero(s, n, false)
		case 3, 4, 5:
			p := make([]byte, n*512)
			blk.ReadSectors(e, d, p, s)
			if err := m.Check(p, s); err != nil {
				return err
			}
		default:
			fua := rng.IntN(4) == 0
			var f blk.Flags
			if fua {
				f = blk.FUA
			}
			blk.WriteSectors(e, d, blktest.Pattern(s, n, i), s, f)
			m.Write(s, n, i, fua)
		}
	}
	return nil
}

func TestModelAndMemdevAgreeAboutCrashes(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		if err := crashRun(seed, false); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if crashRun(seed, true) != nil {
			lost++
		}
	}
	if lost < 40 {
		t.Fatalf("a device that ignores flushes was caught in only %d of 50 runs", lost)
	}
}

func TestFailEachFailsEveryIOOnce(t *testing.T) {
	e := env.Real()
	var runs []int
	n := blktest.FailEach(t, func(t *testing.T, f *blktest.Failer) {
		d := f.Wrap(memdev.New(64))
		bad := 0
		for s := range uint64(3) {
			if blk.WriteSectors(e, d, make([]byte, 512), s, 0) != nil {
				bad++
			}
		}
		if blk.FlushDevice(e, d) != nil {
			bad++
		}
		if (bad > 0) != f.Failed() {
			t.Errorf("%d errors, %v", bad, f)
		}
		runs = append(runs, bad)
	})
	want := []int{1, 4, 1, 3, 1, 2, 1, 1, 0}
	if n != 4 || len(runs) != len(want) {
		t.Fatalf("%d I/Os, failures %v, want %v", n, runs, want)
	}
	for i := range want {
		if runs[i] != want[i] {
			t.Fatalf("failures %v, want %v", runs, want)
		}
	}
}

type leakTB struct {
	testing.TB
	cleanup func()
	failed  bool
}

func (l *leakTB) Cleanup(f func())      { l.cleanup = f }
func (l *leakTB) Errorf(string, ...any) { l.failed = true }

func TestLeaksFindsAGoroutine(t *testing.T) {
	for _, leak := range []bool{false, true} {
		tb := &leakTB{TB: t}
		blktest.Leaks(tb)
		stop := make(chan bool)
		go func() { <-stop }()
		if leak {
			defer blktest.Impatient()()
			defer close(stop)
		} else {
			close(stop)
		}
		tb.cleanup()
		if tb.failed != leak {
			t.Errorf("leak %v, reported %v", leak, tb.failed)
		}
	}
}
