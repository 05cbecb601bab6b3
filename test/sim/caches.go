package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/cache"
	"udm/targets/cache/cachetools"
)

// caches is a scenario with a cache of few blocks in front of a disk of more, which is a
// part of a block longer. Blocks come into the cache by writes of whole blocks, by
// writes to discarded ones, and because they are read again and again; they leave it
// because there is no room, or because the mode is passthrough.
type caches struct {
	block  uint64
	blocks uint64 // of the cache
	size   uint64 // sectors of the top
	format string // metadata2 or nothing
	mode   string
	policy string
	model  *blktest.Model
	began  bool
}

func newCaches(r *rand.Rand) scenario {
	c := &caches{block: 64 * (1 + r.Uint64N(2)), blocks: 3 + r.Uint64N(6)}
	c.size = c.block*(c.blocks+r.Uint64N(8)) + r.Uint64N(c.block)
	c.format = []string{"", "metadata2"}[r.IntN(2)]
	c.mode, c.policy = c.anyMode(r), "smq"
	return c
}

func (c *caches) anyMode(r *rand.Rand) string {
	return []string{"writeback", "writeback", "writethrough", "passthrough"}[r.IntN(4)]
}

const maxCacheBlocks = 12

func (c *caches) prepare(w *harness) {
	w.disk("meta", 8*(40+w.rng.Uint64N(100)))
	w.disk("fast", maxCacheBlocks*c.block+w.rng.Uint64N(c.block))
	w.disk("slow", c.size)
	c.model = blktest.NewModel(c.size)
	w.lossy = w.injects
}

func (c *caches) start(w *harness) {
	c.mend(w)
	c.began = true
	w.device("fastpart", c.fastTable())
	if c.mode == "passthrough" && c.dirty(w) {
		c.mode = "writethrough"
	}
	w.open(w.device("cache", c.table()), c.model)
}

func (c *caches) fastTable() string { return fmt.Sprintf("0 %d linear fast 0", c.blocks*c.block+7) }

func (c *caches) table() string {
	features := "1 " + c.mode
	if c.format != "" {
		features = "2 " + c.format + " " + c.mode
	}
	return fmt.Sprintf("0 %d cache meta /dev/mapper/fastpart slow %d %s %s 2 migration_threshold %d", c.size, c.block, features, c.policy, c.block*3)
}

// mend clears needs_check after errors, so that the cache can be used again.
func (c *caches) mend(w *harness) {
	if d, _, err := w.Open("meta", true); c.began && w.injects && w.right(err, "open meta") {
		w.right(cachetools.ClearNeedsCheck(w.sim, d), "mend metadata")
	}
}

// dirty reports whether the metadata has dirty blocks.
func (c *caches) dirty(w *harness) bool {
	d, _, err := w.Open("meta", false)
	if !w.right(err, "open meta") {
		return true
	}
	r, err := cachetools.Check(w.sim, d, cachetools.CheckOptions{})
	return err != nil || r.Err() != nil || r.Dirty > 0
}

func (c *caches) control(w *harness, r *rand.Rand) {
	v := w.volume("cache")
	if v == nil {
		return
	}
	switch k := r.IntN(18); {
	case k < 2:
		c.churn(w, v, r)
	case k < 6:
		c.writeBlock(w, v, r)
	case k < 9:
		c.heat(w, v, r.Uint64N(c.size), 20+r.IntN(60))
	case k < 10:
		w.sleep(time.Duration(1+r.IntN(30)) * 700 * time.Millisecond)
	case k < 11:
		c.resize(w, r)
	case k < 13:
		c.change(w, r)
	case k < 14:
		v.dev.Message(0, fmt.Sprintf("migration_threshold %d", r.IntN(8)*int(c.block)))
		_, err := v.dev.Message(0, fmt.Sprintf("invalidate_cblocks %d", r.Uint64N(c.blocks)))
		w.note("invalidate: %v", err)
	default:
		w.pause(v.dev, r.IntN(2) == 0, r)
	}
}

// writeBlock writes a whole block, or discards one and writes to it.
func (c *caches) writeBlock(w *harness, v *volume, r *rand.Rand) {
	for range 1 + r.IntN(4) {
		s := span{r.Uint64N(c.size/c.block) * c.block, c.block}
		if v.touched(s) || v.gone {
			continue
		}
		seed := r.Uint64() | 1
		b := &blk.Bio{Op: blk.Write, Sector: s.sector, Sectors: s.sectors}
		if r.IntN(4) == 0 {
			b.Flags = blk.FUA
		}
		if r.IntN(4) == 0 && v.h.Limits().MaxDiscard > 0 {
			b.Op, b.Flags = blk.Discard, 0
			w.change(v, b, 0)
			continue
		}
		b.SetBufs(chop(r, blktest.Pattern(s.sector, s.sectors, seed)), s.sectors)
		w.change(v, b, seed)
	}
}

// churn lets the blocks of the cache cool down, so that they make room for others.
func (c *caches) churn(w *harness, v *volume, r *rand.Rand) {
	w.sleep(61 * time.Second)
	for range 2 + r.IntN(3) {
		c.heat(w, v, r.Uint64N(c.size), 40+r.IntN(30))
	}
}

// heat reads one place again and again.
func (c *caches) heat(w *harness, v *volume, sector uint64, times int) {
	s := span{sector, 1}
	for range times {
		if v.gone || v.touched(s) {
			return
		}
		w.read(v, &blk.Bio{Sector: s.sector, Sectors: s.sectors})
		w.sim.NewWait().Until(func() bool { return !v.touched(s) })
	}
}

// resize lets the cache device grow.
func (c *caches) resize(w *harness, r *rand.Rand) {
	old := c.blocks
	c.blocks = max(old, 1+r.Uint64N(maxCacheBlocks-1)) // a smaller one may be refused
	w.note("resize the cache from %d to %d blocks", old, c.blocks)
	d, err := w.c.Name("fastpart")
	if !w.must(err, "find fastpart") {
		return
	}
	w.reload(d, c.fastTable())
	if r.IntN(2) == 0 {
		d := w.volume("cache").dev
		if w.must(d.Suspend(context.Background(), false), "suspend cache") {
			if !w.must(w.trying(func() error { return d.Resume(context.Background(), false) }), "resume cache") {
				w.loadSurely(d, c.table(), "slow")
			}
		}
	} else {
		w.loadSurely(w.volume("cache").dev, c.table(), "slow")
	}
}

// change loads a table with another mode or policy. Passthrough is only for a cache
// without dirty blocks: it is cleaned first.
func (c *caches) change(w *harness, r *rand.Rand) {
	old := *c
	c.mode, c.policy = c.anyMode(r), []string{"smq", "smq", "mq", "cleaner"}[r.IntN(4)]
	v := w.volume("cache")
	if c.mode == "passthrough" {
		c.mode, c.policy = "writethrough", "cleaner"
		w.loadSurely(v.dev, c.table(), "slow")
		w.sleep(5 * time.Second)
		s, err := cache.ParseStatus(v.dev.Lines(dm.Info, false, 0)[0].Params)
		if !w.must(err, "status") || s.Dirty > 0 || s.State != cache.Figures {
			return
		}
		c.mode, c.policy = "passthrough", "smq"
	}
	w.note("change from %s %s to %s %s", old.mode, old.policy, c.mode, c.policy)
	w.loadSurely(v.dev, c.table(), "slow")
}

// verify looks at all of the metadata.
func (c *caches) verify(w *harness) {
	d, _, err := w.Open("meta", false)
	if !w.right(err, "open meta") {
		return
	}
	r, err := cachetools.Check(w.sim, d, cachetools.CheckOptions{})
	if w.right(err, "check metadata") {
		w.right(r.Err(), "metadata")
	}
}

// impatient: nothing in the stack waits for space.
func (c *caches) impatient(*volume) bool { return true }
