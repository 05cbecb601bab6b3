package snapshot

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
)

func (r *rig) setParam(name string, value uint32) {
	r.Helper()
	p, err := dm.FindParam(r.c.Params(), name)
	r.ok(err)
	p.Set(value)
}

// TestCopyThrottle: a low share of time for copies holds them back.
func TestCopyThrottle(t *testing.T) {
	for _, percent := range []uint32{100, 1, 0} {
		sim := stepped()
		r := newGated(t, sim, 4096, 8192)
		r.setParam(throttleParam, percent)
		s := r.device("s", 4096, "snapshot O C P 8")
		r.shut()
		a := r.write(s, 0, 3, 2)
		sim.Advance(time.Second)
		r.open()
		r.wantEnd(a, blk.OK)
		b := r.write(s, 8, 3, 2)
		if held := !b.ended(); held != (percent != 100) {
			t.Errorf("%d %%: second copy held back: %t", percent, held)
		}
		sim.Advance(2 * time.Second)
		r.wantEnd(b, blk.OK)
	}
}

// TestLog checks the messages of snapshots in the log.
func TestLog(t *testing.T) {
	for _, c := range []struct{ store, want string }{
		{"P 8", `level=ERROR msg="snapshot is lost: invalid from now on" device=s reason="its store is full"`},
		{"PO 8", `level=ERROR msg="snapshot's store is full: writes fail from now on" device=s`},
	} {
		r := newGated(t, stepped(), 4096, 24)
		var log bytes.Buffer
		r.c.SetLog(slog.New(slog.NewTextHandler(&log, nil)))
		s := r.device("s", 4096, "snapshot O C "+c.store)
		for i := range uint64(4) {
			r.write(s, i*8, 8, 2)
		}
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, c.want+"\n") {
			t.Errorf("%s: said %q, want %q", c.store, got, c.want)
		}
		log.Reset()
		if c.store == "PO 8" {
			continue
		}
		r.remove("s")
		r.device("s", 4096, fmt.Sprint("snapshot O C ", c.store))
		if got := log.String(); !strings.Contains(got, `level=WARN msg="snapshot is invalid: its store says so" device=s`) {
			t.Errorf("%s: said %q", c.store, got)
		}
	}
}
