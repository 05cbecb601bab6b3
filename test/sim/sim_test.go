package sim

import (
	"flag"
	"testing"
	"time"
)

var (
	seconds = flag.Int("seconds", 0, "run histories for so many seconds")
	one     = flag.Uint64("seed", 0, "run the history of this seed only, and print it")
	first   = flag.Uint64("first", 1, "the first seed")
	few     = flag.Uint64("few", 150, "how many histories of each kind without -seconds")
	whole   = flag.Bool("whole", false, "do not reduce a history that fails")
)

var kinds = []kind{
	{name: "plain", make: newPlain},
	{name: "snapshots", make: newSnapshots},
	{name: "thins", make: newThins},
	{name: "deep", make: newDeep},
	{name: "plain-errors", make: newPlain, errors: true},
	{name: "snapshots-errors", make: newSnapshots, errors: true},
	{name: "thins-errors", make: newThins, errors: true},
	{name: "thins-damaged", make: newDamaged},
	{name: "daemon", make: newDaemon},
	{name: "volumes", make: newObjects},
	{name: "volumes-lazy", make: newLazyObjects, long: true},
	{name: "layers", make: newLayers},
	{name: "layers-errors", make: newLayers, errors: true},
	{name: "snapshots-hard", make: newSnapshots, hard: true},
	{name: "thins-hard", make: newThins, hard: true},
	{name: "thins-errors-hard", make: newThins, errors: true, hard: true},
	{name: "deep-hard", make: newDeep, hard: true},
	{name: "plain-full", make: newPlain, full: true},
	{name: "snapshots-full", make: newSnapshots, full: true},
	{name: "thins-full", make: newThins, full: true},
	{name: "thins-hard-full", make: newThins, hard: true, full: true},
	{name: "deep-full", make: newDeep, full: true},
	{name: "daemon-full", make: newDaemon, full: true},
	{name: "volumes-full", make: newObjects, full: true},
	{name: "plain-limited", make: newPlain, limited: true, long: true},
	{name: "snapshots-limited", make: newSnapshots, limited: true, long: true},
	{name: "thins-limited", make: newThins, limited: true, long: true},
	{name: "thins-errors-limited", make: newThins, errors: true, limited: true, long: true},
	{name: "mirrors", make: newMirrors},
	{name: "mirrors-hard", make: newMirrors, hard: true},
	{name: "mirrors-errors", make: newMirrors, errors: true},
	{name: "mirrors-full", make: newMirrors, full: true},
	{name: "plain-far", make: newPlain, far: true, long: true},
	{name: "snapshots-far", make: newSnapshots, far: true, long: true},
	{name: "thins-far", make: newThins, far: true, long: true},
	{name: "deep-far", make: newDeep, far: true, long: true},
	{name: "caches", make: newCaches, long: true},
	{name: "caches-hard", make: newCaches, hard: true, long: true},
	{name: "caches-errors", make: newCaches, errors: true, long: true},
	{name: "caches-full", make: newCaches, full: true, long: true},
	{name: "eras", make: newEras, long: true},
	{name: "eras-errors", make: newEras, errors: true, long: true},
	{name: "eras-hard", make: newEras, hard: true, long: true},
	{name: "eras-full", make: newEras, full: true, long: true},
	{name: "clones", make: newClones, long: true},
	{name: "clones-errors", make: newClones, errors: true, long: true},
	{name: "clones-hard", make: newClones, hard: true, long: true},
	{name: "clones-full", make: newClones, full: true, long: true},
	{name: "writecaches", make: newWritecaches, long: true},
	{name: "writecaches-hard", make: newWritecaches, hard: true, long: true},
	{name: "writecaches-errors", make: newWritecaches, errors: true, long: true},
	{name: "writecaches-full", make: newWritecaches, full: true, long: true},
	{name: "integrities", make: newIntegrities, long: true},
	{name: "integrities-hard", make: newIntegrities, hard: true, long: true},
	{name: "integrities-errors", make: newIntegrities, errors: true, long: true},
	{name: "integrities-full", make: newIntegrities, full: true, long: true},
	{name: "tagged", make: newTagged, long: true},
	{name: "tagged-hard", make: newTagged, hard: true, long: true},
	{name: "tagged-errors", make: newTagged, errors: true, long: true},
	{name: "tagged-full", make: newTagged, full: true, long: true},
	{name: "multipaths", make: newMultipaths, long: true},
	{name: "multipaths-hard", make: newMultipaths, hard: true, long: true},
	{name: "multipaths-errors", make: newMultipaths, errors: true, long: true},
}

// TestHistories runs a few histories of each kind, or as many as fit into
// -seconds.
func TestHistories(t *testing.T) {
	for _, sc := range kinds {
		t.Run(sc.name, func(t *testing.T) {
			end := time.Now().Add(time.Duration(*seconds) * time.Second / time.Duration(len(kinds)))
			var sum counts
			n := uint64(0)
			for seed := *first; ; seed++ {
				if *one != 0 {
					seed = *one
				}
				w := live(seed, sc, nil)
				if len(w.errs) > 0 && !*whole {
					w = reduce(w, sc)
				}
				if len(w.errs) > 0 {
					t.Fatal(w.report())
				}
				n++
				sum.add(w.stats)
				if *one != 0 {
					t.Log(w.report())
					return
				}
				if *seconds == 0 && n == sc.few() || *seconds > 0 && time.Now().After(end) {
					break
				}
			}
			t.Logf("%d histories from seed %d on: %d operations, %d reads, %d writes, %d power cuts, %d holes", n, *first, sum.ops, sum.reads, sum.writes, sum.cuts, sum.holes)
		})
	}
}

// few is how many histories there are without -seconds.
func (k kind) few() uint64 {
	n := *few
	if testing.Short() {
		n /= 3
	}
	if k.long {
		n /= 4
	}
	return max(1, n)
}

func (c *counts) add(o counts) {
	c.ops += o.ops
	c.reads += o.reads
	c.writes += o.writes
	c.cuts += o.cuts
	c.holes += o.holes
}

// reduce omits operations as long as the history still fails.
func reduce(w *harness, k kind) *harness {
	out := map[int]bool{}
	for step := w.ops; step > 0; step /= 2 {
		for at := 1; at <= w.ops; at += step {
			try := map[int]bool{}
			for op := range out {
				try[op] = true
			}
			for i := at; i < at+step; i++ {
				try[i] = true
			}
			if len(try) == len(out) {
				continue
			}
			if v := live(w.seed, k, func(op int) bool { return try[op] }); len(v.errs) > 0 {
				out, w = try, v
			}
		}
	}
	return w
}

// One seed, one history: to the last step.
func TestSeedReplays(t *testing.T) {
	for _, sc := range kinds {
		for seed := uint64(1); seed < 10; seed++ {
			a, b := live(seed, sc, nil), live(seed, sc, nil)
			if x, y := a.report(), b.report(); x != y {
				t.Fatalf("%s seed %d gives two histories:\n%s\n\n%s", sc.name, seed, x, y)
			}
		}
	}
}

// found are histories that have found defects, of the stack or of the judge.
var found = map[string][]uint64{
	"plain-errors":     {12830},
	"thins":            {15, 40, 1343},
	"snapshots-errors": {7, 2108, 2930, 3001778},
	"thins-errors":     {458, 2139},
	"daemon":           {231, 326, 472},
	"volumes":          {459, 100171, 101654},
	"volumes-full":     {125},
	"volumes-lazy":     {20797},
	"eras-errors":      {1050, 2399},
	"eras-full":        {3676},
	"clones-errors":    {1129},
	"clones-full":      {1064},
	"mirrors-errors":   {20962, 23491, 31398},
	"integrities":      {1110},
	"tagged-hard":      {2484},
}

func TestFoundBefore(t *testing.T) {
	for _, k := range kinds {
		for _, seed := range found[k.name] {
			if w := live(seed, k, nil); len(w.errs) > 0 {
				t.Error(k.name, reduce(w, k).report())
			}
		}
	}
}
