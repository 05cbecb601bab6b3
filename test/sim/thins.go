package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/thin/thintools"
)

// thins is a scenario with a pool on striped and linear devices. Its volumes and snapshots
// of them are made, deleted and discarded while they are written.
type thins struct {
	blocks   uint64 // of the data device
	spare    uint64 // blocks by which the data device can grow
	meta     uint64 // sectors of metadata
	block    uint64 // sectors in one
	features string
	vols     []*thinVolume
	nextID   int
	began    bool // there is metadata
	corrupt  bool // the metadata is silently damaged before some start, which is the last one
}

type thinVolume struct {
	id    int
	size  uint64
	model *blktest.Model
	kept  bool // it was there at a start
}

const (
	maxThins, maxThinBlocks = 5, 6
	maxMeta                 = 4096 // sectors
)

func newThins(r *rand.Rand) scenario {
	t := &thins{blocks: 2 * maxThins * maxThinBlocks, block: 128 * (1 + r.Uint64N(2)), meta: 1024 * (1 + r.Uint64N(4))}
	if r.IntN(4) == 0 {
		t.spare = t.blocks - 2*(1+r.Uint64N(6))
		t.blocks -= t.spare
	}
	t.features = []string{"0", "1 skip_block_zeroing", "1 no_discard_passdown", "1 ignore_discard", "1 error_if_no_space"}[r.IntN(5)]
	return t
}

// newDamaged is thins with a metadata disk that returns wrong data from some start on. The
// pool may refuse the metadata or fail, but it must not use wrong data.
func newDamaged(r *rand.Rand) scenario {
	t := newThins(r).(*thins)
	t.corrupt = true
	return t
}

func (t *thins) prepare(w *harness) {
	w.disk("meta", maxMeta)
	w.disk("d0", (t.blocks+t.spare)*t.block/2)
	w.disk("d1", (t.blocks+t.spare)*t.block/2+8)
	w.lossy = w.injects
	w.faulty = w.faulty || t.spare > 0
}

func (t *thins) start(w *harness) {
	t.mend(w)
	if t.corrupt && t.began && w.rng.IntN(2) == 0 {
		t.damage(w)
	}
	t.began = true
	t.setPortion(w)
	w.device("data", t.dataTable())
	w.device("md", t.metaTable())
	w.device("pool", t.poolTable())
	// A power cut may have left a held root: EINVAL if not.
	pool, err := w.c.Name("pool")
	if err != nil && w.last || !w.right(err, "find the pool") {
		return
	}
	_, _ = pool.Message(0, "release_metadata_snap")
	for _, v := range slices.Clone(t.vols) {
		switch t.open(w, v); {
		case w.volume(v.name()) != nil:
			v.kept = true
		case w.lossy && !v.kept, w.last:
			// A message succeeds whether its commit does or not, as in Linux.
			t.vols = slices.DeleteFunc(t.vols, func(o *thinVolume) bool { return o == v })
		default:
			w.fail("%s is gone", v.name())
		}
	}
}

// setPortion makes some pools delete all volumes in portions, of one leaf each.
func (t *thins) setPortion(w *harness) {
	p, err := dm.FindParam(w.c.Params(), "dm_thin_pool.delete_portion")
	if w.right(err, "find the parameter") && t.meta%3 != 0 {
		p.Set(0)
	}
}

func (t *thins) open(w *harness, v *thinVolume) {
	w.open(w.device(v.name(), fmt.Sprintf("0 %d thin /dev/mapper/pool %d", v.size, v.id)), v.model)
}

func (v *thinVolume) name() string { return fmt.Sprintf("thin%d", v.id) }

func (t *thins) control(w *harness, r *rand.Rand) {
	k := r.IntN(13)
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
		w.sleep(1200 * time.Millisecond)
	case k < 10:
		t.grow(w, r)
	default:
		ds := w.c.List()
		w.pause(ds[r.IntN(len(ds))], r.IntN(2) == 0, r)
	}
}

func (t *thins) message(w *harness, format string, args ...any) bool {
	pool, err := w.c.Name("pool")
	if !w.must(err, "find the pool") {
		return false
	}
	text := fmt.Sprintf(format, args...)
	w.note("message %s", text)
	err = w.trying(func() error {
		_, err := pool.Message(0, text)
		return err
	})
	return w.must(err, "message %s", text)
}

func (t *thins) create(w *harness, r *rand.Rand) {
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

func (t *thins) snapshot(w *harness, r *rand.Rand) {
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
		if !w.lossy {
			from.model.FlushEnd(token) // the message commits
		}
		v.model = from.model.Clone()
		t.vols = append(t.vols, v)
	}
	w.must(d.Resume(context.Background(), false), "resume %s", from.name())
	if v.model != nil {
		t.open(w, v)
	}
}

func (t *thins) remove(w *harness, r *rand.Rand) {
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
func (t *thins) verify(w *harness) {
	d, _, err := w.Open("meta", false)
	if !w.right(err, "open meta") {
		return
	}
	report, err := thintools.Check(w.sim, d, thintools.CheckOptions{})
	if !w.right(err, "check metadata") {
		return
	}
	// A block that was taken before a commit and mapped after it is leaked by a
	// power cut in between; thin_check calls that no damage, and repairs it.
	if w.stats.cuts == 0 && !w.injects || report.Fatal > 0 || !w.injects && report.NonFatal > len(report.Leaked.Data) {
		w.right(report.Err(), "metadata")
	}
}

// impatient reports whether writes that find no space fail.
func (t *thins) impatient(*volume) bool { return strings.Contains(t.features, "error_if_no_space") }
