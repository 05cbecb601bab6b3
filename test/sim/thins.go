package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"udm/blk/blktest"
	"udm/pdata/thinmeta"
)

// thins is a pool with volumes and snapshots of them, over striped and linear
// devices, made, deleted and discarded while they are written.
type thins struct {
	blocks   uint64 // of the data device
	block    uint64 // sectors in one
	features string
	vols     []*thinVolume
	nextID   int
}

type thinVolume struct {
	id    int
	size  uint64
	model *blktest.Model
}

const maxThins, maxThinBlocks = 5, 6

func newThins(r *rand.Rand) scenario {
	t := &thins{blocks: 2 * maxThins * maxThinBlocks, block: 128 * (1 + r.Uint64N(2))}
	t.features = []string{"0", "1 skip_block_zeroing", "1 no_discard_passdown", "1 ignore_discard", "1 error_if_no_space"}[r.IntN(5)]
	return t
}

func (t *thins) prepare(w *world) {
	w.disk("meta", 4096)
	w.disk("d0", t.blocks*t.block)
	w.disk("d1", t.blocks*t.block)
}

func (t *thins) start(w *world) {
	size := t.blocks * t.block
	w.device("data", fmt.Sprintf("0 %d striped 2 %d d0 0 d1 8", size, t.block/2))
	w.device("md", "0 4096 linear meta 0")
	w.device("pool", fmt.Sprintf("0 %d thin-pool /dev/mapper/md /dev/mapper/data %d 2 %s", size, t.block, t.features))
	// A power cut may have left a held root: EINVAL if not.
	pool, _ := w.c.Name("pool")
	_, _ = pool.Message(0, "release_metadata_snap")
	for _, v := range t.vols {
		t.open(w, v)
	}
}

func (t *thins) open(w *world, v *thinVolume) {
	w.open(w.device(v.name(), fmt.Sprintf("0 %d thin /dev/mapper/pool %d", v.size, v.id)), v.model)
}

func (v *thinVolume) name() string { return fmt.Sprintf("thin%d", v.id) }

func (t *thins) control(w *world, r *rand.Rand) {
	k := r.IntN(12)
	switch {
	case len(t.vols) == 0 || k < 2:
		t.create(w, r)
	case k < 5:
		t.snapshot(w, r)
	case k < 7:
		t.remove(w, r)
	case k < 8:
		t.message(w, "reserve_metadata_snap")
		t.message(w, "release_metadata_snap")
	case k < 9:
		w.sleep(1200 * 1e6)
	default:
		ds := w.c.List()
		w.pause(ds[r.IntN(len(ds))], r.IntN(2) == 0, r)
	}
}

func (t *thins) message(w *world, format string, args ...any) bool {
	pool, _ := w.c.Name("pool")
	text := fmt.Sprintf(format, args...)
	w.note("message %s", text)
	_, err := pool.Message(0, text)
	return w.must(err, "message %s", text)
}

func (t *thins) create(w *world, r *rand.Rand) {
	if len(t.vols) >= maxThins {
		return
	}
	t.nextID++
	v := &thinVolume{id: t.nextID, size: t.block*(1+r.Uint64N(maxThinBlocks-1)) + r.Uint64N(t.block)}
	if !t.message(w, "create_thin %d", v.id) {
		return
	}
	v.model = blktest.NewModel(v.size)
	if strings.Contains(t.features, "skip_block_zeroing") {
		v.model = blktest.NewModel(0)
		v.model.Resize(v.size) // what was there before shows
	}
	t.vols = append(t.vols, v)
	t.open(w, v)
}

func (t *thins) snapshot(w *world, r *rand.Rand) {
	if len(t.vols) >= maxThins {
		return
	}
	from := t.vols[r.IntN(len(t.vols))]
	d, err := w.c.Name(from.name())
	if !w.must(err, "find %s", from.name()) || !w.must(d.Suspend(context.Background(), false), "suspend %s", from.name()) {
		return
	}
	t.nextID++
	v := &thinVolume{id: t.nextID, size: from.size}
	token := from.model.FlushBegin()
	if t.message(w, "create_snap %d %d", v.id, from.id) {
		from.model.FlushEnd(token) // the message commits
		v.model = from.model.Clone()
		t.vols = append(t.vols, v)
	}
	w.must(d.Resume(context.Background(), false), "resume %s", from.name())
	if v.model != nil {
		t.open(w, v)
	}
}

func (t *thins) remove(w *world, r *rand.Rand) {
	i := r.IntN(len(t.vols))
	v := t.vols[i]
	u := w.volume(v.name())
	if u == nil {
		return
	}
	w.drop(u)
	t.vols = append(t.vols[:i:i], t.vols[i+1:]...)
	if _, err := u.dev.Remove(false); w.must(err, "remove %s", v.name()) {
		t.message(w, "delete %d", v.id)
	}
}

// verify looks at all of the metadata.
func (t *thins) verify(w *world) {
	d, _, err := w.Open("meta", false)
	if !w.must(err, "open meta") {
		return
	}
	report, err := thinmeta.Check(w.sim, d, thinmeta.CheckOptions{})
	if !w.must(err, "check metadata") {
		return
	}
	// A block that was taken before a commit and mapped after it is leaked by a
	// power cut in between; thin_check calls that no damage, and repairs it.
	if w.stats.cuts == 0 || report.Fatal > 0 || report.NonFatal > len(report.Leaked.Data) {
		w.must(report.Err(), "metadata")
	}
}
