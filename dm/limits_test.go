package dm

import (
	"strings"
	"testing"

	"udm/blk"
)

// areaType is "area DEVICE START": identity onto an area of the target's length.
var areaType = &Type{Name: "area", New: func(t *Target, args []string) (Mapper, error) {
	d, err := t.Open(args[0], true)
	if err != nil {
		return nil, err
	}
	start, err := ParseUint(args[1], 1<<40)
	t.NumFlush, t.NumDiscard, t.NumWriteZeroes = 1, 1, 1
	return &area{shift{d, start}, Area{d, start, t.Len}}, err
}}

type area struct {
	shift
	a Area
}

func (a *area) Areas() []Area { return []Area{a.a} }

func newAreaRig(t *testing.T) *rig {
	r := newRig(t)
	r.c.types["area"] = areaType
	return r
}

func TestAreasMustFit(t *testing.T) {
	r := newAreaRig(t)
	r.limit = func(l *blk.Limits) { l.LogicalBlock = 4096 }
	r.gate("g4")
	r.limit = func(*blk.Limits) {}
	for table, want := range map[string]string{
		"0 8 area g0 1017":                          "too small",
		"0 8 area g0 1024":                          "too small",
		"0 1024 area g0 0":                          "",
		"0 8 area g4 4":                             "start=4 not aligned",
		"0 12 area g4 0":                            "len=12 not aligned",
		"0 8 area g4 8":                             "",
		"0 4 area g0 0|4 8 area g4 0":               "not aligned",
		"0 8 area g4 0|8 4 area g0 0":               "not aligned",
		"0 4 area g0 0|4 4 area g0 4":               "",
		"0 4 area g0 0|4 4 area g0 9|8 8 area g4 0": "",
	} {
		d := r.create("d")
		err := d.Load(specs(strings.Split(table, "|")...), Mode{Write: true})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", table, err, want)
		}
		d.Remove(false)
	}
}

// Only the first table of a device is checked at load; a later one is checked when it
// is to become live, and discarded if it does not fit.
func TestLaterTablesAreCheckedAtResume(t *testing.T) {
	r := newAreaRig(t)
	d := r.device("d", "0 8 area g0 0")
	r.load(d, "0 8 area g0 1020")
	if err := d.Resume(ctx, false); err == nil || !strings.Contains(err.Error(), "too small") {
		t.Fatalf("got %v", err)
	}
	if s := d.Status(); !s.Suspended || s.Inactive || !s.Live {
		t.Fatalf("%+v", s)
	}
	r.must(d.Resume(ctx, false))
}

func TestLimitsStack(t *testing.T) {
	r := newAreaRig(t)
	r.limit = func(l *blk.Limits) {
		l.LogicalBlock, l.MinIO, l.OptIO = 4096, 4096, 12288
		l.MaxDiscard, l.MaxWriteZeroes = 0, 64
		l.VolatileCache, l.FUA, l.Rotational = true, false, true
	}
	r.gate("g1")
	r.limit = func(l *blk.Limits) { l.OptIO, l.MaxWriteZeroes, l.ProcessCache = 8192, 128, false }
	r.gate("g0")
	l := r.device("d", "0 8 area g0 0", "8 8 area g1 0").Limits()
	want := blk.Limits{Size: 16, LogicalBlock: 4096, PhysicalBlock: 512, MinIO: 4096, OptIO: 24576,
		MaxWriteZeroes: 64, VolatileCache: true, Rotational: true, NoWait: true, ProcessCache: true, ProcessMemory: true}
	if l != want {
		t.Fatalf("got  %+v\nwant %+v", l, want)
	}
	l = r.device("e", "0 8 area g0 0").Limits()
	if l.MaxDiscard == 0 || l.DiscardGranularity != 512 || l.VolatileCache || l.FUA || l.ProcessCache {
		t.Fatalf("%+v", l)
	}
}

func TestAnOpThatADeviceRefusesIsDisabled(t *testing.T) {
	r := newAreaRig(t)
	d := r.device("d", "0 8 area g0 0")
	x := r.submit(d, blk.WriteZeroes, 0, 0, 8)
	r.fail("g0", blk.Target)
	r.ended(x, blk.NotSupported)
	if l := d.Limits(); l.MaxWriteZeroes != 0 || l.MaxDiscard == 0 {
		t.Fatalf("%+v", l)
	}
	// Another table may have another device below.
	r.load(d, "0 8 area g1 0")
	r.resume(d)
	if l := d.Limits(); l.MaxWriteZeroes == 0 {
		t.Fatalf("with a new table: %+v", l)
	}
}
