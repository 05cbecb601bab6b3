package faultdev_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/faultdev"
	"udm/blk/memdev"
	"udm/env"
)

func outcome(e env.Env, d blk.Device, op blk.Op, sector uint64, f blk.Flags) blk.Status {
	b := &blk.Bio{Op: op, Sector: sector, Flags: f}
	switch {
	case op.HasData():
		b.SetData(blktest.Pattern(sector, 1, 9))
	case op != blk.Flush:
		b.Sectors = 1
	}
	return blk.Do(e, d, b)
}

func TestRulesChooseByOpFlagRangeAndCount(t *testing.T) {
	e := env.NewStepped()
	d := faultdev.New(e, memdev.New(64), 1)
	run := func(n int, op blk.Op, sector uint64, f blk.Flags) string {
		var s []string
		for range n {
			s = append(s, fmt.Sprint(uint8(outcome(e, d, op, sector, f))))
		}
		return strings.Join(s, "")
	}
	check := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	check(run(2, blk.Write, 5, 0), "00")
	d.SetRules(
		faultdev.Rule{Ops: []blk.Op{blk.Write, blk.Discard}, Sector: 8, Sectors: 8, Skip: 1, Count: 2, Status: blk.IOErr},
		faultdev.Rule{Flags: blk.FUA, Status: blk.NoSpace},
	)
	check(run(2, blk.Write, 7, 0)+run(2, blk.Write, 16, 0)+run(2, blk.Read, 8, 0)+run(1, blk.Flush, 8, 0), "0000000")
	check(run(1, blk.Write, 8, 0)+run(1, blk.Discard, 15, 0)+run(1, blk.Write, 15, 0), "011")
	check(run(2, blk.Write, 8, blk.FUA)+run(2, blk.Write, 8, 0), "3300")
	if d.Hits(0) != 2 || d.Hits(1) != 2 {
		t.Errorf("hits %d %d", d.Hits(0), d.Hits(1))
	}
	d.SetRules()
	check(run(2, blk.Write, 8, blk.FUA), "00")
}

func TestReachedFailsAfterTheDeviceDidIt(t *testing.T) {
	e := env.NewStepped()
	for _, reached := range []bool{false, true} {
		m := memdev.New(64)
		d := faultdev.New(e, m, 1)
		d.SetRules(faultdev.Rule{Status: blk.IOErr, Reached: reached})
		if st := outcome(e, d, blk.Write, 3, 0); st != blk.IOErr {
			t.Error(st)
		}
		if m.Sum256() != memdev.New(64).Sum256() != reached {
			t.Errorf("reached %v, but the disk says otherwise", reached)
		}
	}
}

func TestChanceComesFromTheSeed(t *testing.T) {
	run := func(seed uint64) string {
		d := faultdev.New(env.NewStepped(), memdev.New(64), seed)
		d.SetRules(faultdev.Rule{Percent: 30, Status: blk.IOErr})
		var s strings.Builder
		for range 1000 {
			fmt.Fprint(&s, uint8(outcome(env.NewStepped(), d, blk.Read, 0, 0)))
		}
		return s.String()
	}
	if a, b := run(1), run(1); a != b || a == run(2) {
		t.Error("runs do not depend on the seed alone")
	}
	if n := strings.Count(run(1), "1"); n < 250 || n > 350 {
		t.Errorf("%d of 1000 failed, want about 300", n)
	}
}

func TestDelayIsTheEnvironmentsTime(t *testing.T) {
	s := env.NewStepped()
	delayed(t, s)
	synctest.Test(t, func(t *testing.T) { delayed(t, env.Real()) })
}

func delayed(t *testing.T, e env.Env) {
	d := faultdev.New(e, memdev.New(64), 1)
	d.SetRules(faultdev.Rule{Ops: []blk.Op{blk.Read}, Delay: time.Hour, Status: blk.Timeout})
	start := e.Now()
	if st := outcome(e, d, blk.Write, 0, 0); st != blk.OK || e.Now() != start {
		t.Errorf("write: %v after %v", st, e.Now()-start)
	}
	if st := outcome(e, d, blk.Read, 0, 0); st != blk.Timeout || e.Now()-start != time.Hour {
		t.Errorf("read: %v after %v", st, e.Now()-start)
	}
	ended := false
	d.Submit(&blk.Bio{Op: blk.Read, End: func(*blk.Bio) { ended = true }})
	if err := d.Close(); err != nil || !ended {
		t.Errorf("close did not wait: %v", err)
	}
}

func TestCrashLosesWhatWasNotFlushed(t *testing.T) {
	s := env.NewStepped()
	m := memdev.New(64, memdev.Volatile)
	d := faultdev.New(s, m, 1)
	write := func(sector, seed uint64) error {
		return blk.WriteSectors(s, d, blktest.Pattern(sector, 1, seed), sector, 0)
	}
	if err := write(0, 1); err != nil {
		t.Fatal(err)
	}
	blk.FlushDevice(s, d)
	if err := write(1, 1); err != nil {
		t.Fatal(err)
	}
	d.SetRules(faultdev.Rule{Delay: time.Second})
	var late []blk.Status
	for i := range uint64(2) {
		b := &blk.Bio{Op: blk.WriteZeroes, Sector: i, Sectors: 1, End: func(b *blk.Bio) { late = append(late, b.Status()) }}
		d.Submit(b)
	}
	d.Crash()
	d.SetRules()
	if fmt.Sprint(late) != fmt.Sprint([]blk.Status{blk.Offline, blk.Offline}) || write(2, 1) != blk.Offline || s.Pending() != 0 {
		t.Errorf("bios around the crash: %v, %d timers left", late, s.Pending())
	}
	p := make([]byte, 1024)
	blk.ReadSectors(s, m.CrashCloneNone(), p, 0)
	if blktest.Check(p[:512], 0, 1) != nil || blktest.Check(p[512:], 1, 0) != nil {
		t.Error("flushed data lost, or unflushed data kept")
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func BenchmarkNoRules4K(b *testing.B) {
	d, p := faultdev.New(env.Real(), memdev.New(64), 1), make([]byte, 4096)
	bio := &blk.Bio{End: func(*blk.Bio) {}}
	b.ReportAllocs()
	for b.Loop() {
		bio.Rearm()
		bio.Sector = 0
		bio.SetData(p)
		d.Submit(bio)
	}
}
