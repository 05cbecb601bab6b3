package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/integrity"
)

// integrities is a scenario with an integrity device, which first computes the tags of what
// the disk holds. It is suspended, and loaded again in mode J or B with other settings.
type integrities struct {
	size     uint64 // sectors of the top
	fixed    string // features that stay
	tag      int    // bytes
	mode     string
	settings string
	model    *blktest.Model
}

func newIntegrities(r *rand.Rand) scenario {
	g := &integrities{size: 40 + r.Uint64N(200), tag: 4 << r.IntN(7)}
	g.fixed = fmt.Sprintf("internal_hash:crc32c recalculate fix_padding journal_sectors:%d interleave_sectors:%d buffer_sectors:%d", 1+r.IntN(400), 8<<r.IntN(5), 1<<r.IntN(5))
	if r.IntN(3) == 0 {
		g.fixed += " meta_device:meta"
	}
	if r.IntN(2) == 0 {
		g.fixed += " allow_discards"
	}
	g.choose(r)
	return g
}

// choose draws a mode and settings.
func (g *integrities) choose(r *rand.Rand) {
	g.mode = "JB"[r.IntN(2):][:1]
	g.settings = fmt.Sprintf("journal_watermark:%d commit_time:%d sectors_per_bit:%d bitmap_flush_interval:%d", r.IntN(101), r.IntN(3000), 8<<r.IntN(3), r.IntN(3000))
}

func (g *integrities) prepare(w *harness) {
	w.disk("data", 700+5*g.size)
	w.disk("meta", 900+2*g.size)
	g.model = blktest.NewModel(g.size)
	w.lossy = w.injects
}

func (g *integrities) start(w *harness) {
	w.open(w.device("integrity", g.table(g.mode)), g.model)
}

func (g *integrities) table(mode string) string {
	words := g.fixed + " " + g.settings
	return fmt.Sprintf("0 %d integrity data 0 %d %s %d %s", g.size, g.tag, mode, len(strings.Fields(words)), words)
}

func (g *integrities) control(w *harness, r *rand.Rand) {
	v := w.volume("integrity")
	if v == nil {
		return
	}
	switch k := r.IntN(8); {
	case k < 3:
		w.sleep(time.Duration(r.IntN(4000)) * time.Millisecond)
	case k < 6:
		g.choose(r)
		w.note("mode %s %s", g.mode, g.settings)
		w.calm = true // a journal that cannot be written is lost with its table
		w.loadSurely(v.dev, g.table(g.mode), "data")
		w.calm = false
	default:
		w.pauseSurely(v.dev, r.IntN(2) == 0, r, "data")
	}
}

// verify reads all blocks in mode R: each matches its tag, or has none yet. If writes failed
// at the end, the journal or the bitmap may still be needed.
func (g *integrities) verify(w *harness) {
	if w.faulty || w.host != nil {
		return
	}
	c := dm.NewControl(w.sim, w, integrity.Type())
	d, err := c.Create("r", "", -1)
	if !w.right(err, "create r") {
		return
	}
	specs, err := dm.ParseTable(g.table("R"))
	if w.right(err, "table") && w.right(d.Load(specs, dm.Mode{}), "load") && w.right(d.Resume(context.Background(), false), "resume") {
		w.right(blk.ReadSectors(w.sim, d, make([]byte, g.size*blk.SectorSize), 0), "read all blocks")
	}
	w.right(c.Close(), "close")
}

// impatient: nothing in the stack waits for space.
func (g *integrities) impatient(*volume) bool { return true }
