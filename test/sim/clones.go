package sim

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/clone"
	"udm/targets/clone/clonemeta"
)

// clones is a scenario with a copy of a disk that is in use while it is copied. The source
// never changes; when all is hydrated, the destination alone has the content.
type clones struct {
	region  uint64 // sectors
	size    uint64 // sectors of the top, of which the last region may be a part
	options string // of the table, behind the region
	meta    uint64 // sectors
	source  *blktest.Model
	model   *blktest.Model
	began   bool
}

// sourceSeed is the content of the source.
const sourceSeed = 77

func newClones(r *rand.Rand) scenario {
	c := &clones{region: 8 << r.IntN(4)}
	c.size = c.region*(2+r.Uint64N(20)) + r.Uint64N(c.region)
	c.options, c.meta = anyCloneOptions(r), 8*(20+r.Uint64N(30))
	return c
}

func anyCloneOptions(r *rand.Rand) string {
	return []string{"1 no_hydration", "0", "1 no_discard_passdown", "2 no_hydration no_discard_passdown"}[r.IntN(4)] +
		fmt.Sprintf(" 4 hydration_threshold %d hydration_batch_size %d", r.IntN(6), 1+r.IntN(4))
}

func (c *clones) prepare(w *harness) {
	w.disk("meta", c.meta)
	w.disk("dest", c.size+c.size%20)
	w.disk("source", c.size)
	c.model = blktest.NewModel(c.size)
	c.model.Write(0, c.size, sourceSeed, true)
	c.source = c.model.Clone()
	w.lossy = w.injects
}

// fill writes the content of the source.
func (c *clones) fill(w *harness) {
	d := w.disks[2]
	b := &blk.Bio{Op: blk.Write, End: func(*blk.Bio) {}}
	b.SetData(blktest.Pattern(0, c.size, sourceSeed))
	d.perform(b)
	d.perform(&blk.Bio{Op: blk.Flush, End: func(*blk.Bio) {}})
}

// start checks what the last round has left, of which nothing may be damaged.
func (c *clones) start(w *harness) {
	if c.began {
		c.checkMetadata(w)
	} else {
		c.fill(w)
	}
	c.began = true
	w.open(w.device("clone", c.table()), c.model)
}

func (c *clones) table() string {
	return fmt.Sprintf("0 %d clone meta dest source %d %s", c.size, c.region, c.options)
}

func (c *clones) checkMetadata(w *harness) {
	if d, _, err := w.Open("meta", false); w.right(err, "open meta") {
		_, err := clonemeta.Check(w.sim, d)
		w.right(err, "metadata")
	}
}

func (c *clones) control(w *harness, r *rand.Rand) {
	v := w.volume("clone")
	if v == nil {
		return
	}
	switch k := r.IntN(12); {
	case k < 2:
		w.sleep(time.Duration(1+r.IntN(8)) * 400 * time.Millisecond)
	case k < 3:
		c.options = anyCloneOptions(r)
		w.note("reload: %s", c.options)
		w.loadSurely(v.dev, c.table(), "dest")
	case k < 6:
		w.pauseSurely(v.dev, r.IntN(2) == 0, r, "dest")
	case k < 8:
		c.rewrite(w, v, r)
	case k < 9:
		c.discard(w, v, r)
	default:
		text := []string{"enable_hydration", "disable_hydration", fmt.Sprintf("hydration_threshold %d", r.IntN(5)), fmt.Sprintf("hydration_batch_size %d", r.IntN(5))}[r.IntN(4)]
		w.note("message %s", text)
		_, err := v.dev.Message(0, text)
		w.must(err, "message %s", text)
	}
}

// rewrite writes whole regions, which need no copy.
func (c *clones) rewrite(w *harness, v *volume, r *rand.Rand) {
	first := r.Uint64N(c.size / c.region)
	s := span{first * c.region, c.region * (1 + r.Uint64N(min(3, c.size/c.region-first)))}
	if v.touched(s) || v.gone {
		return
	}
	seed := r.Uint64() | 1
	b := &blk.Bio{Op: blk.Write, Sector: s.sector}
	if r.IntN(3) == 0 {
		b.Flags = blk.FUA
	}
	b.SetBufs(chop(r, blktest.Pattern(s.sector, s.sectors, seed)), s.sectors)
	w.change(v, b, seed)
}

// discard discards a few regions, some beside their copies.
func (c *clones) discard(w *harness, v *volume, r *rand.Rand) {
	first := r.Uint64N(c.size / c.region)
	s := span{first * c.region, c.region * (1 + r.Uint64N(min(4, c.size/c.region-first)))}
	if !v.touched(s) && !v.gone && v.h.Limits().MaxDiscard > 0 {
		w.change(v, &blk.Bio{Op: blk.Discard, Sector: s.sector, Sectors: s.sectors}, 0)
	}
}

// verify looks at all of the metadata, at the source, and at the destination if all is
// there.
func (c *clones) verify(w *harness) {
	c.checkMetadata(w)
	c.compare(w, "source", c.source)
	if c.isHydrated(w) {
		w.note("all is hydrated")
		c.compare(w, "dest", c.model)
	}
}

// isHydrated loads the table once more, without hydration.
func (c *clones) isHydrated(w *harness) bool {
	d := w.device("look", fmt.Sprintf("0 %d clone meta dest source %d 1 no_hydration", c.size, c.region))
	if d == nil {
		return false
	}
	s, err := clone.ParseStatus(d.Lines(dm.Info, false, 0)[0].Params)
	all := w.right(err, "status") && s.Hydrated == s.Regions
	_, err = d.Remove(false)
	w.right(err, "remove look")
	return all
}

func (c *clones) compare(w *harness, disk string, m *blktest.Model) {
	d, _, err := w.Open(disk, false)
	if !w.right(err, "open %s", disk) {
		return
	}
	p := make([]byte, c.size*blk.SectorSize)
	if w.right(blk.ReadSectors(w.sim, d, p, 0), "read %s", disk) {
		w.right(m.Check(p, 0), "content of %s", disk)
	}
}

// impatient: nothing in the stack waits for space.
func (c *clones) impatient(*volume) bool { return true }

func (c *clones) digest(h *maphash.Hash) { c.model.Digest(h) }
