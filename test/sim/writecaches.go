package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/writecache"
)

// writecaches is a scenario with a writecache of few blocks before a disk of more. It is
// suspended, loaded again with other settings, and written back by its watermarks, its
// age, messages, and as a cleaner.
type writecaches struct {
	size    uint64 // sectors of the top
	begin   uint64 // sector where the cache begins
	fast    uint64 // sectors from there on
	options string
	model   *blktest.Model
}

func newWritecaches(r *rand.Rand) scenario {
	c := &writecaches{size: 40 + r.Uint64N(200), begin: r.Uint64N(20)}
	c.choose(r)
	c.fast = 8 + r.Uint64N(90)
	return c
}

// choose draws settings.
func (c *writecaches) choose(r *rand.Rand) {
	low := r.IntN(90)
	n, text := 2, fmt.Sprintf("start_sector %d", c.begin)
	for _, o := range []string{fmt.Sprintf("high_watermark %d low_watermark %d", low+r.IntN(100-low), low), fmt.Sprintf("autocommit_blocks %d autocommit_time %d", 1+r.IntN(20), r.IntN(3000)),
		fmt.Sprintf("max_age %d writeback_jobs %d", r.IntN(4000), r.IntN(9))} {
		if r.IntN(2) == 0 {
			n, text = n+4, text+" "+o
		}
	}
	if r.IntN(3) == 0 {
		n, text = n+2, text+fmt.Sprintf(" pause_writeback %d", r.IntN(50))
	}
	if r.IntN(12) == 0 {
		n, text = n+1, text+" cleaner"
	}
	c.options = fmt.Sprintf("%d %s", n, text)
}

func (c *writecaches) prepare(w *harness) {
	w.disk("fast", c.begin+c.fast)
	w.disk("slow", c.size)
	c.model = blktest.NewModel(c.size)
	w.lossy = w.injects
}

func (c *writecaches) start(w *harness) {
	w.open(w.device("writecache", c.table()), c.model)
}

func (c *writecaches) table() string {
	return fmt.Sprintf("0 %d writecache s slow fast 512 %s", c.size, c.options)
}

func (c *writecaches) control(w *harness, r *rand.Rand) {
	v := w.volume("writecache")
	if v == nil {
		return
	}
	switch k := r.IntN(16); {
	case k < 3:
		_, err := v.dev.Message(0, "flush")
		w.note("message flush: %v", err)
		c.clean(w, v.dev, err)
	case k < 4:
		v.dev.Message(0, []string{"cleaner", "flush_on_suspend", "clear_stats"}[r.IntN(3)])
	case k < 7:
		w.sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
	case k < 11:
		c.choose(r)
		w.note("options %s", c.options)
		c.reload(w, v.dev)
	default:
		w.pause(v.dev, r.IntN(2) == 0, r)
	}
}

// clean sees that the message flush has not failed without saying so.
func (c *writecaches) clean(w *harness, d *dm.Device, err error) {
	s, bad := writecache.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	if w.right(bad, "status") && err == nil && s.Failed && !w.faulty {
		w.fail("the writecache has failed: %v", s)
	}
}

// reload loads the table again. If disks fail meanwhile, so that it cannot be resumed, it
// is resumed when they do not; if that fails as well, all I/O fails for this round.
func (c *writecaches) reload(w *harness, d *dm.Device) {
	if w.reload(d, c.table()) || !d.Status().Suspended {
		return
	}
	w.calm = true
	defer func() { w.calm = false }()
	if err := d.Resume(context.Background(), false); err != nil {
		w.note("%v", err)
		w.right(d.Load([]dm.Spec{{Len: c.size, Type: "flakey", Params: "slow 0 0 1"}}, dm.Mode{Write: true}), "load a failing table")
		w.right(d.Resume(context.Background(), false), "resume a failing table")
	}
}

// verify looks at all of the metadata.
func (c *writecaches) verify(w *harness) {
	d, _, err := w.Open("fast", false)
	if !w.right(err, "open fast") {
		return
	}
	p := make([]byte, blk.SectorSize)
	if !w.right(blk.ReadSectors(w.sim, d, p, c.begin), "read the superblock") || w.faulty && p[0] == 0 {
		return // it could not be made
	}
	r, err := writecache.Check(w.sim, d, c.begin)
	if w.right(err, "check metadata") {
		w.right(r.Err(), "metadata")
		if r.Uncommitted > 0 && !w.faulty {
			w.fail("%d entries are not committed after an orderly end", r.Uncommitted)
		}
	}
}

// impatient: nothing in the stack waits for space.
func (c *writecaches) impatient(*volume) bool { return true }
