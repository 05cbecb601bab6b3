package thin

import (
	"bytes"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/dm"
)

func (r *rig) setParam(name string, value uint32) {
	r.Helper()
	p, err := dm.FindParam(r.Control.Params(), name)
	r.Must(err)
	p.Set(value)
}

// TestNoSpaceTimeout: the parameter counts at the moment when the pool runs out
// of space.
func TestNoSpaceTimeout(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after uint32 // set before and after the pool is full
		least, most   time.Duration
	}{
		{"shorter", 5, 5, 4 * time.Second, 6 * time.Second},
		{"longer", 600, 600, 599 * time.Second, 601 * time.Second},
		{"never", 0, 0, 2 * time.Hour, 0},
		{"too late", 60, 1, 59 * time.Second, 61 * time.Second},
		{"too late to never", 60, 0, 59 * time.Second, 61 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.setParam(noSpaceParam, c.before)
			r.start(8)
			d := r.thin(0, 64)
			r.Write(d, 0, 8*bs, 1)
			x := r.Submit(d, blk.Write, 0, 1024, 8, 3)
			r.setParam(noSpaceParam, c.after)
			r.Sim.Advance(c.least)
			r.Held(x)
			r.mode("out_of_data_space", "queue_if_no_space")
			if c.most != 0 {
				r.Sim.Advance(c.most - c.least)
				r.Done(x, blk.NoSpace)
				r.mode("out_of_data_space", "error_if_no_space")
				return
			}
			r.Disk("d").Resize(64 * bs)
			r.Swap(r.pool, poolTable(64))
			r.Sim.Run()
			r.Done(x, blk.OK)
		})
	}
}

// TestCopyThrottle: a low share of time for copies holds them back.
func TestCopyThrottle(t *testing.T) {
	for _, percent := range []uint32{100, 1} {
		r := newRig(t, noZeroes)
		r.setParam(throttleParam, percent)
		r.start(64)
		d := r.thin(0, 64)
		g := r.Gate("d")
		g.Shut()
		x := r.Submit(d, blk.Write, 0, 0, 8, 1) // zeroing takes its time
		r.Sim.Advance(time.Second)
		g.Open()
		r.Sim.Run()
		r.Done(x, blk.OK)
		y := r.Submit(d, blk.Write, 0, bs, 8, 1)
		if percent == 1 {
			r.Held(y)
			r.Sim.Advance(2 * time.Second)
		}
		r.Done(y, blk.OK)
	}
}

func TestParamsAreThePools(t *testing.T) {
	a, b := newRig(t), newRig(t)
	a.setParam(noSpaceParam, 1)
	if n := b.Control.Params()[1]; n.Name != noSpaceParam || n.Get() != 60 {
		t.Errorf("%s is %d in another control", n.Name, n.Get())
	}
}

// TestLog checks the messages of a pool in the log.
func TestLog(t *testing.T) {
	r := newRig(t)
	var log bytes.Buffer
	r.Control.SetLog(slog.New(slog.NewTextHandler(&log, nil)))
	said := func(want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(log.String()) {
			got = append(got, regexp.MustCompile(`time=\S+ `).ReplaceAllString(strings.TrimSpace(line), ""))
		}
		log.Reset()
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("said\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	r.Disk("d").Resize(8 * bs)
	r.pool = r.Device("pool", "0 1024 thin-pool m d 128 2")
	said(`level=INFO msg="the data device grows" device=pool from=0 to=8`)
	d := r.thin(0, 64)
	r.Write(d, 0, 7*bs, 1)
	said(`level=WARN msg="free data blocks have reached the low water mark" device=pool free=2 mark=2`)
	r.Write(d, 7*bs, bs, 1)
	x := r.Submit(d, blk.Write, 0, 9*bs, 8, 1)
	said(`level=WARN msg="pool goes from mode write to out of data space; writes that need space wait" device=pool`)
	r.Sim.Advance(61 * time.Second)
	r.Done(x, blk.NoSpace)
	said(`level=WARN msg="no space was added in time; writes that need space fail" device=pool`)
	r.Disk("d").Resize(64 * bs)
	r.Swap(r.pool, poolTable(64))
	said(`level=INFO msg="pool goes from mode out of data space to write" device=pool`,
		`level=INFO msg="the data device grows" device=pool from=8 to=64`)
	r.failOnce("m", blk.Flush, func() {
		r.Write(d, 9*bs, 8, 1)
		r.Do(d, blk.Flush, 0, 0, 0, blk.IOErr)
	})
	said(`level=ERROR msg="metadata operation failed; going back to the last commit" device=pool reason="I/O error"`,
		`level=WARN msg="the metadata is marked needs_check" device=pool`,
		`level=WARN msg="pool goes from mode write to read-only" device=pool`)
	r.failWith("m", func() { r.Swap(r.pool, poolTable(64)) })
	said(`level=ERROR msg="the metadata must be checked before the pool can be written to" device=pool`)
}
