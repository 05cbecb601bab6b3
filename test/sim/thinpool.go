package sim

import (
	"fmt"
	"math/rand/v2"

	"udm/blk"
	"udm/targets/thin/thintools"
)

// mend repairs a pool that had errors, so that it can be used again.
func (t *thins) mend(w *harness) {
	if !w.injects {
		return
	}
	d, _, err := w.Open("meta", true)
	if !w.right(err, "open meta") {
		return
	}
	if used, err := blk.Sub(d, 0, t.meta); w.right(err, "meta") && t.began {
		_, err := thintools.Mend(w.sim, used, thintools.CheckOptions{})
		w.right(err, "mend metadata")
	}
}

// damage flips a bit in each of a few bytes of metadata that are not 0.
func (t *thins) damage(w *harness) {
	w.last, w.faulty, w.lossy, w.begun = true, true, true, true
	p := make([]byte, t.meta*blk.SectorSize)
	d := w.disks[0].mem
	if err := blk.ReadSectors(w.sim, d, p, 0); !w.right(err, "read meta") {
		return
	}
	var used []int
	for at, c := range p[blk.SectorSize:] { // without the superblock
		if c != 0 {
			used = append(used, blk.SectorSize+at)
		}
	}
	for range min(len(used), 1+w.rng.IntN(30)) {
		at := used[w.rng.IntN(len(used))]
		w.note("damage byte %d of meta", at)
		p[at] ^= 1 << w.rng.IntN(8)
	}
	w.right(blk.WriteSectors(w.sim, d, p, 0, 0), "write meta")
}

func (t *thins) dataTable() string {
	return fmt.Sprintf("0 %d striped 2 %d d0 0 d1 8", t.blocks*t.block, t.block/2)
}

func (t *thins) metaTable() string { return fmt.Sprintf("0 %d linear meta 0", t.meta) }

func (t *thins) poolTable() string {
	return fmt.Sprintf("0 %d thin-pool /dev/mapper/md /dev/mapper/data %d 2 %s", t.blocks*t.block, t.block, t.features)
}

// grow enlarges the data device or the metadata device of the pool.
func (t *thins) grow(w *harness, r *rand.Rand) {
	name, table := "md", ""
	switch {
	case t.spare > 0 && r.IntN(2) == 0:
		n := min(t.spare, 2*(1+r.Uint64N(8)))
		t.blocks, t.spare = t.blocks+n, t.spare-n
		name, table = "data", t.dataTable()
	case t.meta < maxMeta:
		t.meta = min(maxMeta, t.meta+8*(1+r.Uint64N(100)))
		table = t.metaTable()
	default:
		return
	}
	w.note("grow %s: %s", name, table)
	if d, err := w.c.Name(name); w.must(err, "find %s", name) {
		w.reload(d, table)
	}
	if pool, err := w.c.Name("pool"); w.must(err, "find the pool") {
		w.reload(pool, t.poolTable())
	}
}
