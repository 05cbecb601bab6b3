package sim

import (
	"fmt"
	"math/rand/v2"

	"udm/blk"
	"udm/blk/blktest"
)

// deep is the snapshots scenario with thin volumes as its disks, in a pool on striped and
// linear devices. The first content of the origin comes from an external origin.
type deep struct {
	*snapshots
	pool *thins
}

func newDeep(r *rand.Rand) scenario {
	d := &deep{snapshots: newSnapshots(r).(*snapshots), pool: newThins(r).(*thins)}
	d.mapped = true
	d.pool.spare = 0
	d.pool.meta = maxMeta
	d.pool.blocks = 100
	return d
}

// names returns the names of the pool's volumes in the order of their ids, from 0 on.
func (d *deep) names() []string { return []string{"o", "c0", "c1", "c2"} }

func (d *deep) sectors(i int) uint64 {
	if i == 0 {
		return d.size
	}
	return d.room(d.cows[i-1])
}

// prepare writes the external origin.
func (d *deep) prepare(w *harness) {
	d.pool.prepare(w)
	ext := w.disk("ext", d.size)
	b := &blk.Bio{Op: blk.Write, End: func(*blk.Bio) {}}
	const seed = 77
	b.SetData(blktest.Pattern(0, d.size, seed))
	ext.perform(b)
	ext.perform(&blk.Bio{Op: blk.Flush, End: func(*blk.Bio) {}})
	d.model.Write(0, d.size, seed, true)
}

func (d *deep) start(w *harness) {
	began := d.pool.began
	d.pool.start(w)
	w.device("ext", fmt.Sprintf("0 %d linear ext 0", d.size))
	for i, name := range d.names() {
		if !began {
			d.pool.message(w, "create_thin %d", i)
		}
		table := fmt.Sprintf("0 %d thin /dev/mapper/pool %d", d.sectors(i), i)
		if i == 0 {
			table += " /dev/mapper/ext"
		}
		w.device(name, table)
	}
	d.snapshots.start(w)
}

func (d *deep) verify(w *harness) {
	d.snapshots.verify(w)
	d.pool.verify(w)
}

func (d *deep) impatient(*volume) bool { return d.pool.impatient(nil) }
