package main

import (
	"strings"
	"testing"

	"udm/ctl"
)

// A trace as text has the columns of blkparse; a name does not control the terminal.
func TestTraceText(t *testing.T) {
	var b strings.Builder
	p := tracePrinter{w: &b, named: make(map[ctl.Number]bool)}
	n, to := &ctl.Number{Major: 254, Minor: 3}, &ctl.Number{Major: 7, Minor: 2}
	for _, e := range []ctl.TraceEvent{
		{Step: ctl.TraceQueued, Time: 5_000_000_000, ID: 1, Number: n, Name: "web\x1b1", Op: "write", Flags: []string{"preflush", "fua"}, Sector: 2048, Sectors: 8, Target: "thin"},
		{Step: ctl.TraceIssued, Time: 5_000_004_112, ID: 1, Number: n, Op: "write", Sector: 2048, Sectors: 8, Target: "thin", To: to, ToSector: 40},
		{Step: ctl.TraceCompleted, Time: 5_000_052_870, ID: 1, Number: n, Op: "write", Sector: 2048, Sectors: 8, Took: 52_870},
		{Step: ctl.TraceCompleted, Time: 6_500_000_000, ID: 2, Number: n, Op: "write_zeroes", Sector: 0, Sectors: 1, Error: "I/O error", Took: 1_500_000_000},
		{Step: ctl.TraceRequeued, Time: 7_000_000_000, ID: 3, Number: n, Op: "discard", Sector: 7, Sectors: 1, Target: "thin"},
		{Step: ctl.TraceIssued, Time: 7_000_001_000, ID: 3, Number: n, Op: "read", Sector: 7, Sectors: 1, Target: "thin"},
		{Step: ctl.TraceLost, Lost: 12},
	} {
		if err := p.print(e); err != nil {
			t.Fatal(err)
		}
	}
	want := `# 254:3 is web\x1b1
254:3         1    0.000000000  Q FWF 2048 + 8 [thin]
254:3         1    0.000004112  D   W 2048 + 8 -> 7:2 40 [thin]
254:3         1    0.000052870  C   W 2048 + 8 [0] 52.9µs
254:3         2    1.500000000  C   Z 0 + 1 [I/O error] 1.5s
254:3         3    2.000000000  R   D 7 + 1 [thin]
254:3         3    2.000001000  D   R 7 + 1 [thin]
# 12 steps lost
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
