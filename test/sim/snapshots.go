package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/dm"
)

// snapshots is a scenario with an origin and up to three snapshots of it, with stores of
// different chunk sizes. They are made, dropped and merged while the origin is written.
type snapshots struct {
	size    uint64
	model   *blktest.Model // of the origin volume, whatever its table is
	cows    []*cow
	merging *cow // the one being merged into the origin; nil: none
	mapped  bool // the disks are mapped devices
}

// cow is a disk for the store of a snapshot.
type cow struct {
	disk  string
	kind  string // P or PO
	chunk uint64
	small bool           // too small to hold everything: errors are expected
	model *blktest.Model // nil: not in use
}

func newSnapshots(r *rand.Rand) scenario {
	s := &snapshots{size: 8 * (20 + r.Uint64N(100))}
	s.model = blktest.NewModel(s.size)
	for i := range 3 {
		s.cows = append(s.cows, &cow{
			disk: fmt.Sprintf("c%d", i), kind: []string{"P", "PO"}[r.IntN(2)],
			chunk: 1 << (2 + r.IntN(5)), small: r.IntN(6) == 0,
		})
	}
	return s
}

func (s *snapshots) prepare(w *harness) {
	w.calm = true
	w.disk("o", s.size)
	for _, c := range s.cows {
		d := w.disk(c.disk, s.room(c))
		// These writes and flushes mark a store as invalid. If they failed, the
		// store would be valid after the next start, as in Linux.
		d.spared = func(b *blk.Bio) bool {
			return b.Op == blk.Flush && !d.mem.Limits().FUA || b.Op == blk.Write && b.Sector == 0
		}
	}
}

// room returns the size of c's store in sectors.
func (s *snapshots) room(c *cow) uint64 {
	chunks := (s.size + c.chunk - 1) / c.chunk
	if c.small {
		return (3 + chunks/3) * c.chunk
	}
	perArea := c.chunk * blk.SectorSize / 16
	return (3 + chunks + chunks/perArea + 1) * c.chunk
}

// path returns the name of a disk in tables.
func (s *snapshots) path(disk string) string {
	if s.mapped {
		return "/dev/mapper/" + disk
	}
	return disk
}

// with opens a disk for f.
func (s *snapshots) with(w *harness, disk string, f func(blk.Device)) {
	var d blk.Device
	var err error
	if !s.mapped {
		d, _, err = w.Open(disk, true)
	} else if dev, e := w.c.Name(disk); e != nil {
		err = e
	} else if d, err = dev.Open(true); err == nil {
		d = checkdev.New(d, checkdev.Options{})
	}
	if w.must(err, "open %s", disk) {
		f(d)
		w.must(d.Close(), "close %s", disk)
	}
}

func (s *snapshots) start(w *harness) {
	for _, c := range s.cows {
		if c.model != nil && c != s.merging {
			s.openSnapshot(w, c)
		}
	}
	w.open(w.device("origin", s.originTable()), s.model)
}

func (s *snapshots) originTable() string {
	if s.merging != nil {
		return fmt.Sprintf("0 %d snapshot-merge %s %s %s %d", s.size, s.path("o"), s.path(s.merging.disk), s.merging.kind, s.merging.chunk)
	}
	return fmt.Sprintf("0 %d snapshot-origin %s", s.size, s.path("o"))
}

func (s *snapshots) openSnapshot(w *harness, c *cow) {
	table := fmt.Sprintf("0 %d snapshot %s %s %s %d", s.size, s.path("o"), s.path(c.disk), c.kind, c.chunk)
	if v := w.open(w.device("snap-"+c.disk, table), c.model); v != nil {
		v.faulty = c.small || w.faulty
	}
}

func (s *snapshots) control(w *harness, r *rand.Rand) {
	c := s.cows[r.IntN(len(s.cows))]
	switch k := r.IntN(10); {
	case s.merging != nil && k < 5:
		s.finishMerge(w)
	case k < 5 && c.model == nil && s.merging == nil:
		s.take(w, c)
	case k < 6 && c.model != nil && c != s.merging:
		s.remove(w, c)
	case k < 7 && c.model != nil && !c.small && s.merging == nil && w.volume("snap-"+c.disk) != nil:
		s.merge(w, c)
	default:
		ds := w.c.List()
		w.pause(ds[r.IntN(len(ds))], r.IntN(2) == 0, r)
	}
}

// take makes a snapshot. The origin is suspended while the snapshot is activated.
func (s *snapshots) take(w *harness, c *cow) {
	origin, _ := w.c.Name("origin")
	w.note("snapshot on %s, %s chunk %d", c.disk, c.kind, c.chunk)
	s.wipe(w, c)
	if !w.must(origin.Suspend(context.Background(), false), "suspend origin") {
		return
	}
	s.flushOrigin(w)
	c.model = s.model.Clone()
	s.openSnapshot(w, c)
	w.must(origin.Resume(context.Background(), false), "resume origin")
	w.note("snapshot on %s is there", c.disk)
}

// wipe erases a store's header, so that a new store is made.
func (s *snapshots) wipe(w *harness, c *cow) {
	s.with(w, c.disk, func(d blk.Device) {
		zeroes := make([]byte, c.chunk*blk.SectorSize)
		w.must(w.trying(func() error { return blk.WriteSectors(w.sim, d, zeroes, 0, 0) }), "wipe %s", c.disk)
		w.must(w.trying(func() error { return blk.FlushDevice(w.sim, d) }), "flush %s", c.disk)
	})
}

// flushOrigin makes the content of the origin durable, which the snapshot will share: a
// flush of a snapshot reaches only its store, as in the kernel.
func (s *snapshots) flushOrigin(w *harness) {
	s.with(w, "o", func(d blk.Device) {
		token := s.model.FlushBegin()
		if w.must(w.trying(func() error { return blk.FlushDevice(w.sim, d) }), "flush o") {
			s.model.FlushEnd(token)
		}
	})
}

func (s *snapshots) remove(w *harness, c *cow) {
	v := w.volume("snap-" + c.disk)
	if v == nil {
		return
	}
	w.note("remove %s", v.name)
	w.drop(v)
	c.model = nil
	_, err := v.dev.Remove(false)
	w.must(err, "remove %s", v.name)
}

// merge begins to merge a snapshot into the origin: both are closed, and the origin gets a
// snapshot-merge table that takes over the store.
func (s *snapshots) merge(w *harness, c *cow) {
	snap, origin := w.volume("snap-"+c.disk), w.volume("origin")
	w.note("merge %s", c.disk)
	w.drop(snap)
	w.drop(origin)
	w.must(snap.dev.Suspend(context.Background(), false), "suspend %s", snap.name)
	w.must(origin.dev.Suspend(context.Background(), false), "suspend origin")
	if lines := snap.dev.Lines(dm.Info, false, 0); w.faulty && !strings.Contains(lines[0].Params, "/") {
		s.forget(w, c, snap, origin)
		return
	}
	s.merging, s.model = c, c.model
	if !w.reload(origin.dev, s.originTable()) {
		return
	}
	_, err := snap.dev.Remove(false)
	w.must(err, "remove %s", snap.name)
	w.open(origin.dev, s.model)
	w.note("merging %s", c.disk)
}

// forget removes a snapshot that cannot be merged because errors have made it invalid.
func (s *snapshots) forget(w *harness, c *cow, snap, origin *volume) {
	c.model = nil
	_, err := snap.dev.Remove(false)
	w.must(err, "remove %s", snap.name)
	w.must(origin.dev.Resume(context.Background(), false), "resume origin")
	w.open(origin.dev, s.model)
}

// finishMerge gives the origin a snapshot-origin table again if the merge is complete.
func (s *snapshots) finishMerge(w *harness) {
	origin, _ := w.c.Name("origin")
	if !s.merged(w, origin) {
		return
	}
	w.note("merge of %s is done", s.merging.disk)
	if !w.must(origin.Suspend(context.Background(), false), "suspend origin") {
		return
	}
	c := s.merging
	s.merging = nil
	if w.reload(origin, s.originTable()) {
		c.model = nil
	}
}

// merged reports whether the merge is complete: its status says that only metadata is
// allocated.
func (s *snapshots) merged(w *harness, origin *dm.Device) bool {
	lines := origin.Lines(dm.Info, false, 0)
	f := strings.FieldsFunc(lines[0].Params, func(r rune) bool { return r == '/' || r == ' ' })
	if len(f) != 3 {
		if w.faulty {
			return false
		}
		w.fail("status of a merge: %q", lines[0].Params)
		return false
	}
	return f[0] == f[2]
}

func (s *snapshots) verify(w *harness) {
	if i := slices.IndexFunc(w.c.List(), func(d *dm.Device) bool { return true }); i >= 0 {
		w.fail("a device is left")
	}
}

// impatient: the origin is a disk, whose writes wait for nothing.
func (s *snapshots) impatient(v *volume) bool { return v.name == "origin" }
