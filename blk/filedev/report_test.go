package filedev

import "testing"

// spaces is a file on a file system.
type spaces struct {
	file
	taken, free, all uint64
}

func (s spaces) space() (taken, free, all uint64, err error) { return s.taken, s.free, s.all, nil }

func TestReportOfLowSpace(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct {
		size, taken, free, all uint64
		low                    bool
	}{
		{gib, 0, 100 * mib, 10 * gib, true},
		{gib, 950 * mib, 100 * mib, 10 * gib, false}, // it lacks less
		{10 * gib, 0, 2 * gib, 10 * gib, false},
		{100 * gib, 0, 4 * gib, 100 * gib, true},
		{100 * gib, 0, 6 * gib, 100 * gib, false},
		{64 * mib, 0, 2 * mib, 12 * mib, true},
		{64 * mib, 0, 4 * mib, 12 * mib, false},
		{64 * mib, 128 * mib, 0, 12 * mib, false},
	} {
		d := &Device{f: spaces{taken: c.taken, free: c.free, all: c.all}}
		d.size.Store(c.size / 512)
		r := d.Report()
		if (r.Lacks > 0) != c.low || (r.State != "") != c.low {
			t.Errorf("%+v: %+v", c, r)
		}
		d.limits.ReadOnly = true
		if r := d.Report(); r.State != "" {
			t.Errorf("read-only: %+v", r)
		}
	}
}
