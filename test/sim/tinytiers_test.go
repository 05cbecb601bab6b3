package sim

import (
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	"udm/blk"
	"udm/blk/blktest"
)

// message is a step that sends a message, which may be refused.
func message(to, text string) step {
	return step{text, func(w *harness, _ uint64) {
		if v := w.volume(to); v != nil {
			_, err := v.dev.Message(0, text)
			w.note("%v", err)
		}
	}}
}

// passes is a step in which time goes by.
func passes(d time.Duration) step {
	return step{fmt.Sprint(d), func(w *harness, _ uint64) { w.sleep(d) }}
}

// anew is a step that reloads a table.
func anew(vol string, table func(scenario) string) step {
	return step{"reload " + vol, func(w *harness, _ uint64) { w.reload(w.volume(vol).dev, table(w.sc)) }}
}

func nothingYet(*harness) {}

func tinyEra() tiny {
	running := func(s step) step {
		return step{s.name, func(w *harness, seed uint64) {
			s.do(w, seed)
			w.sc.(*eras).look(w)
		}}
	}
	return tiny{
		name: "era", slow: true, begin: nothingYet,
		make: func() scenario {
			return &eras{block: 8, size: 60, whole: 60, meta: 256, model: blktest.NewModel(60)}
		},
		clone: func(sc scenario) scenario {
			e := *sc.(*eras)
			e.model, e.least, e.most, e.open = crashed(e.model), slices.Clone(e.least), slices.Clone(e.most), slices.Clone(e.open)
			return &e
		},
		steps: []step{
			writes("era", 0, 8, 0), writes("era", 3, 20, blk.FUA), writes("era", 56, 4, 0), discards("era", 16, 32), flushes("era"),
			running(message("era", "checkpoint")), running(message("era", "take_metadata_snap")), message("era", "drop_metadata_snap"),
			running(anew("era", func(sc scenario) string { return sc.(*eras).table() })),
		},
	}
}

func tinyClone() tiny {
	return tiny{
		name: "clone", slow: true, begin: nothingYet,
		make: func() scenario {
			return &clones{region: 8, size: 52, meta: 256, options: "1 no_hydration 4 hydration_threshold 2 hydration_batch_size 2"}
		},
		clone: func(sc scenario) scenario {
			c := *sc.(*clones)
			c.model = crashed(c.model)
			return &c
		},
		steps: []step{
			writes("clone", 0, 8, 0), writes("clone", 3, 2, 0), writes("clone", 6, 12, blk.FUA), writes("clone", 48, 4, 0),
			discards("clone", 8, 24), flushes("clone"), message("clone", "enable_hydration"), message("clone", "disable_hydration"),
			passes(1100 * time.Millisecond), anew("clone", func(sc scenario) string { return sc.(*clones).table() }),
		},
	}
}

// digest tells what the volume may hold.
func (c *caches) digest(h *maphash.Hash) {
	fmt.Fprint(h, c.mode, c.policy)
	c.model.Digest(h)
}

func tinyCache() tiny {
	return tiny{
		name: "cache", slow: true, begin: nothingYet,
		make: func() scenario {
			return &caches{block: 64, blocks: 2, size: 64*4 + 9, format: "metadata2", mode: "writeback", policy: "smq"}
		},
		clone: func(sc scenario) scenario {
			c := *sc.(*caches)
			c.model = crashed(c.model)
			return &c
		},
		steps: []step{
			writes("cache", 0, 64, 0), writes("cache", 64, 64, blk.FUA), writes("cache", 128, 64, 0), writes("cache", 3, 2, 0),
			writes("cache", 250, 12, 0), discards("cache", 64, 64), flushes("cache"), passes(1100 * time.Millisecond),
			anew("cache", func(sc scenario) string { return sc.(*caches).table() }),
		},
	}
}

// digest tells the settings and what the volume may hold.
func (c *writecaches) digest(h *maphash.Hash) {
	fmt.Fprint(h, c.options)
	c.model.Digest(h)
}

func tinyWritecache() tiny {
	reload := func(options string) step {
		s := anew("writecache", func(sc scenario) string {
			sc.(*writecaches).options = options
			return sc.(*writecaches).table()
		})
		s.name += " " + options
		return s
	}
	const options = "4 high_watermark 60 low_watermark 20"
	return tiny{
		name: "writecache", slow: true, begin: nothingYet,
		make: func() scenario { return &writecaches{size: 24, fast: 10, options: options} },
		clone: func(sc scenario) scenario {
			c := *sc.(*writecaches)
			c.model = crashed(c.model)
			return &c
		},
		steps: []step{
			writes("writecache", 0, 3, 0), writes("writecache", 2, 4, blk.FUA), writes("writecache", 0, 12, 0), writes("writecache", 20, 1, 0),
			discards("writecache", 1, 8), flushes("writecache"), message("writecache", "flush"), message("writecache", "flush_on_suspend"),
			passes(1100 * time.Millisecond), reload(options), reload("3 autocommit_blocks 2 cleaner"),
		},
	}
}
