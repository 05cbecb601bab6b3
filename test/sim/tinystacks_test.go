package sim

import (
	"fmt"
	"hash/maphash"
	"math/rand/v2"

	"udm/blk"
	"udm/blk/blktest"
)

// finish waits, within a task, until the volume's I/O is done.
func (w *harness) finish(v *volume) {
	w.sim.NewWait().Until(func() bool { return len(v.inFlight) == 0 })
}

// writes is a step that writes to a volume if it is there.
func writes(vol string, sector, sectors uint64, flags blk.Flags) step {
	return step{fmt.Sprintf("write %s %d+%d %v", vol, sector, sectors, flags), func(w *harness, seed uint64) {
		if v := w.volume(vol); v != nil {
			b := &blk.Bio{Op: blk.Write, Flags: flags, Sector: sector}
			b.SetData(blktest.Pattern(sector, sectors, seed))
			w.change(v, b, seed)
			w.finish(v)
		}
	}}
}

func flushes(vol string) step {
	return step{"flush " + vol, func(w *harness, _ uint64) {
		if v := w.volume(vol); v != nil {
			w.flushBio(v, &blk.Bio{Op: blk.Flush})
			w.finish(v)
		}
	}}
}

func discards(vol string, sector, sectors uint64) step {
	return step{fmt.Sprintf("discard %s %d+%d", vol, sector, sectors), func(w *harness, _ uint64) {
		if v := w.volume(vol); v != nil {
			w.change(v, &blk.Bio{Op: blk.Discard, Sector: sector, Sectors: sectors}, 0)
			w.finish(v)
		}
	}}
}

func crashed(m *blktest.Model) *blktest.Model {
	if m == nil {
		return nil
	}
	m = m.Clone()
	m.Crash()
	return m
}

func cloneSnapshots(sc scenario) scenario {
	s := *sc.(*snapshots)
	s.model, s.cows = nil, nil
	for _, c := range sc.(*snapshots).cows {
		n := *c
		n.model = crashed(c.model)
		if c.model == sc.(*snapshots).model {
			s.model = n.model // being merged
		}
		if c == s.merging {
			s.merging = &n
		}
		s.cows = append(s.cows, &n)
	}
	if s.model == nil {
		s.model = crashed(sc.(*snapshots).model)
	}
	return &s
}

// digest tells which stores are in use, and what everything may hold.
func (s *snapshots) digest(h *maphash.Hash) {
	for i, c := range s.cows {
		fmt.Fprintf(h, "cow %d merging=%v;", i, c == s.merging)
		c.model.Digest(h)
	}
	s.model.Digest(h)
}

func newTinySnapshots() scenario {
	return &snapshots{size: 16, model: blktest.NewModel(16), cows: []*cow{
		{disk: "c0", kind: "P", chunk: 4}, {disk: "c1", kind: "PO", chunk: 8},
	}}
}

func tinySnapshot() tiny {
	return tiny{
		name: "snapshot", make: newTinySnapshots, clone: cloneSnapshots,
		begin: func(w *harness) {
			s := w.sc.(*snapshots)
			writes("origin", 0, 16, blk.FUA).do(w, 99)
			s.take(w, s.cows[0])
		},
		steps: []step{
			writes("origin", 0, 1, 0), writes("origin", 3, 6, blk.FUA), writes("snap-c0", 0, 4, 0), writes("snap-c0", 5, 2, blk.FUA),
			flushes("origin"), flushes("snap-c0"),
			{"take c1", func(w *harness, _ uint64) {
				if s := w.sc.(*snapshots); s.cows[1].model == nil {
					s.take(w, s.cows[1])
				}
			}},
			{"remove c0", func(w *harness, _ uint64) {
				if s := w.sc.(*snapshots); s.cows[0].model != nil {
					s.remove(w, s.cows[0])
				}
			}},
		},
	}
}

func tinyMerge() tiny {
	return tiny{
		name: "merge", make: newTinySnapshots, clone: cloneSnapshots,
		begin: func(w *harness) {
			s := w.sc.(*snapshots)
			writes("origin", 0, 16, blk.FUA).do(w, 99)
			s.take(w, s.cows[0])
			writes("origin", 0, 6, 0).do(w, 98)
			writes("snap-c0", 12, 2, 0).do(w, 97)
			s.take(w, s.cows[1])
		},
		steps: []step{
			{"merge", func(w *harness, _ uint64) {
				if s := w.sc.(*snapshots); s.merging == nil && s.cows[0].model != nil {
					s.merge(w, s.cows[0])
				}
			}},
			{"finish", func(w *harness, _ uint64) {
				if s := w.sc.(*snapshots); s.merging != nil {
					w.sleep(ms(w.rng, 9))
					s.finishMerge(w)
				}
			}},
			writes("origin", 1, 1, 0), writes("origin", 4, 8, blk.FUA), writes("snap-c1", 2, 1, 0), flushes("origin"), flushes("snap-c1"),
		},
	}
}

func cloneThins(sc scenario) scenario {
	t := *sc.(*thins)
	t.vols = nil
	for _, v := range sc.(*thins).vols {
		n := *v
		n.model = crashed(v.model)
		t.vols = append(t.vols, &n)
	}
	return &t
}

// digest tells which volumes there are, and what they may hold.
func (t *thins) digest(h *maphash.Hash) {
	for _, v := range t.vols {
		fmt.Fprintf(h, "thin %d kept=%v;", v.id, v.kept)
		v.model.Digest(h)
	}
}

func tinyThin() tiny {
	r := rand.New(rand.NewPCG(3, 3))
	return tiny{
		name: "thin", clone: cloneThins,
		make: func() scenario { return &thins{blocks: 16, block: 128, meta: 1024, features: "0"} },
		begin: func(w *harness) {
			t := w.sc.(*thins)
			t.nextID++
			v := &thinVolume{id: 1, size: 256, model: blktest.NewModel(256)}
			if t.message(w, "create_thin 1") {
				t.vols = append(t.vols, v)
				t.open(w, v)
			}
			writes("thin1", 120, 2, blk.FUA).do(w, 99)
		},
		steps: []step{
			writes("thin1", 3, 2, 0), writes("thin1", 0, 128, blk.FUA), writes("thin1", 127, 2, 0), discards("thin1", 0, 128), flushes("thin1"),
			{"snapshot", func(w *harness, _ uint64) { w.sc.(*thins).snapshot(w, r) }},
			writes("thin2", 5, 1, 0), flushes("thin2"),
			{"delete", func(w *harness, _ uint64) {
				if t := w.sc.(*thins); len(t.vols) > 1 {
					t.remove(w, r)
				}
			}},
		},
	}
}
