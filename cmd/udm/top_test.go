package main

import (
	"strings"
	"testing"
	"time"

	"udm/ctl"
)

// stats are statistics with n I/Os of an op, each in a class of latencies.
func stats(name string, minor uint32, op string, n uint64, class int) ctl.Stats {
	buckets := make([]uint64, len(ctl.LatencyBounds)+1)
	buckets[class] = n
	return ctl.Stats{Number: ctl.Number{Major: 254, Minor: minor}, Name: name, Ops: map[string]ctl.OpStats{op: {Count: n, Bytes: n * 4096, Time: time.Duration(n) * time.Millisecond, Buckets: buckets}}}
}

// Rates are those of the interval, whatever was before; a device that has the number of one
// that is gone begins at 0.
func TestTopRows(t *testing.T) {
	before := []ctl.Stats{stats("a", 0, "read", 100, 0), stats("gone", 1, "write", 500, 2)}
	now := []ctl.Stats{stats("a", 0, "read", 300, 0), stats("b", 1, "write", 20, 9), {Name: "idle", Number: ctl.Number{Minor: 7}}}
	now[0].Ops["write"] = ctl.OpStats{Count: 2, Buckets: []uint64{0, 0, 0, 0, 2}}
	now[0].Ops["flush"] = ctl.OpStats{Count: 2, Bytes: 1 << 40, Buckets: []uint64{2}}
	rows := topRows(before, now, 2*time.Second, "")
	want := []topRow{
		{Name: "a", Reads: 100, Writes: 2, Read: 409600, Median: ctl.LatencyBounds[0], P99: ctl.LatencyBounds[0], Load: 0.1},
		{Name: "b", Writes: 10, Wrote: 40960, Median: -1, P99: -1, Load: 0.01},
		{Name: "idle"},
	}
	for i, w := range want {
		if rows[i] != w {
			t.Errorf("%+v, want %+v", rows[i], w)
		}
	}
	if got := topRows(before, now, time.Second, "b"); len(got) != 1 || got[0].Name != "b" {
		t.Errorf("%+v", got)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		buckets []uint64
		share   float64
		want    time.Duration
	}{
		{[]uint64{99, 1}, 0.99, ctl.LatencyBounds[0]}, {[]uint64{98, 2}, 0.99, ctl.LatencyBounds[1]}, {[]uint64{0, 0, 1}, 0.5, ctl.LatencyBounds[2]},
		{make([]uint64, 10), 0.5, 0}, {[]uint64{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 0.5, -1},
	} {
		if got := within(c.buckets, c.share); got != c.want {
			t.Errorf("%v of %v: %s, want %s", c.share, c.buckets, got, c.want)
		}
	}
}

// The longest latency, of which no bound is known, comes first; equals stay by name.
func TestSortTop(t *testing.T) {
	rows := []topRow{{Name: "a", P99: 5}, {Name: "b", P99: -1, Read: 9}, {Name: "c", P99: 5, Writes: 3, Load: 1}, {Name: "d", Reads: 2}}
	for order, want := range map[string]string{"latency": "bacd", "iops": "cdab", "bytes": "bacd", "load": "cabd", "name": "abcd"} {
		sortTop(rows, "name")
		sorted := append([]topRow{}, rows[0], rows[1], rows[2], rows[3])
		sortTop(sorted, order)
		got := ""
		for _, r := range sorted {
			got += r.Name
		}
		if got != want {
			t.Errorf("by %s: %s, want %s", order, got, want)
		}
	}
}

func TestTopTable(t *testing.T) {
	var b strings.Builder
	rows := []topRow{{Name: "bell\a", Reads: 12.4, Read: 1 << 20, Median: ctl.LatencyBounds[0], P99: ctl.LatencyBounds[8], InFlight: 3, Load: 0.5, Failed: 1}, {Name: "idle"}, {Name: "hidden"}}
	if err := printTop(&b, rows, 3); err != nil {
		t.Fatal(err)
	}
	want := `NAME    READS/S  WRITES/S  READ/S  WRITTEN/S  MEDIAN  P99   IN FLIGHT  LOAD  FAILED
bell\a  12       0         1M      0B         66µs    4.3s  3          0.50  1
idle    0        0         0B      0B         -       -     0          0.00
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
