//go:build unix

package conform

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Kinds are the families of random scripts: tables of simple targets; snapshots and their origin; thin devices; stores that are
// too small; merges; and several requests at a time to snapshots or thin devices.
var Kinds = []string{"core", "snapshot", "thin", "overflow", "merge", "parallel"}

// Random writes a script of one of Kinds; the same seed gives the same text. Nothing in it depends on the order in which a device
// mapper does things at the same time: no table maps two places to one sector, and commands follow one another, except for writes
// to different places where only the content is looked at afterwards.
func Random(kind string, seed uint64) string {
	g := newGenerator(kind, seed)
	switch kind {
	case "core":
		g.core()
	case "snapshot":
		newSnapshot(g).script(60)
	case "thin":
		newThin(g).script(60)
	case "overflow":
		g.overflow()
	case "merge":
		g.merge()
	case "parallel":
		g.parallel()
	}
	return g.text.String()
}

// Persistent are the kinds that leave a format on disk.
var Persistent = []string{"snapshot", "thin"}

// Phases writes scripts that go on with each other's disks: each begins by making the devices from what is on the disks, and ends by
// reading all of them and removing them.
func Phases(kind string, seed uint64, n int) []string {
	var next interface{ script(steps int) }
	g := newGenerator(kind, seed)
	if kind == "thin" {
		next = newThin(g)
	} else {
		next = newSnapshot(g)
	}
	var texts []string
	for range n {
		next.script(15)
		texts = append(texts, g.text.String())
		g.text.Reset()
		g.line("# random commands: %s, seed %d, phase %d", kind, seed, len(texts)+1)
	}
	return texts
}

func newGenerator(kind string, seed uint64) *generator {
	g := &generator{rng: rand.New(rand.NewPCG(seed, uint64(len(kind))))}
	g.line("# random commands: %s, seed %d", kind, seed)
	return g
}

// generator writes one script.
type generator struct {
	rng  *rand.Rand
	text strings.Builder
	seed int // of the last write
}

func (g *generator) line(format string, args ...any) { fmt.Fprintf(&g.text, format+"\n", args...) }

// between draws from low to high, both included.
func (g *generator) between(low, high int) int { return low + g.rng.IntN(high-low+1) }

func pick[T any](g *generator, from ...T) T { return from[g.rng.IntN(len(from))] }

// span draws a range of at most most sectors inside size.
func (g *generator) span(size, most int) (sector, count int) {
	count = g.between(1, min(size, pick(g, 1, 8, 64, most)))
	return g.between(0, size-count), count
}

// io writes one data command on a device of the given size in sectors.
func (g *generator) io(dev string, size, most int, verbs ...string) {
	verb := pick(g, verbs...)
	sector, count := g.span(size, most)
	switch verb {
	case "flush":
		g.line("flush %s", dev)
	case "write":
		g.seed++
		g.line("write %s %d %d %d", dev, sector, count, g.seed)
	default:
		g.line("%s %s %d %d", verb, dev, sector, count)
	}
}

const coreDisk = 2048 // sectors

// core makes tables of linear, striped, zero and error targets, one after the other on the same disks.
func (g *generator) core() {
	g.line("needs linear striped zero error")
	for _, d := range []string{"a", "b", "c"} {
		g.line("disk %s 1M", d)
	}
	verb := "create"
	for range 4 {
		g.line("dmsetup %s x", verb)
		size := g.table()
		if verb == "reload" {
			g.line("dmsetup resume x")
		}
		verb = "reload"
		g.line("dmsetup table x")
		for range 12 {
			g.io("x", size, 200, "write", "write", "read", "discard", "zero", "flush")
		}
		for range 4 {
			g.io("x", size, 200, "read")
		}
		g.line("dmsetup status x")
		g.line("dmsetup deps x")
		g.line("dmsetup info -c x")
		g.line("limits x")
	}
	for _, d := range []string{"a", "b", "c"} {
		g.line("read $%s 0 %d", d, coreDisk)
	}
}

// table writes the lines of a random table and returns its size. next is the first sector of each disk not used so far.
func (g *generator) table() int {
	next := map[string]int{"a": g.between(0, 50), "b": g.between(0, 50), "c": g.between(0, 50)}
	take := func(disk string, n int) int {
		at := next[disk]
		next[disk] += n + g.between(0, 9)
		return at
	}
	start := 0
	kinds := []string{"linear", "striped"}
	if g.rng.IntN(3) == 0 { // these two take away discards from the whole table
		kinds = append(kinds, "zero", "error")
	}
	for range g.between(1, 6) {
		var n int
		switch kind := pick(g, kinds...); kind {
		case "linear":
			n = g.between(1, 130)
			disk := pick(g, "a", "b", "c")
			g.line("\t%d %d linear $%s %d", start, n, disk, take(disk, n))
		case "striped":
			n = g.striped(start, take)
		default:
			n = g.between(1, 20)
			g.line("\t%d %d %s", start, n, kind)
		}
		start += n
	}
	return start
}

func (g *generator) striped(start int, take func(string, int) int) int {
	stripes, chunk := g.between(1, 3), pick(g, 1, 3, 4, 7, 8, 16)
	each := chunk * g.between(1, 5)
	var dests strings.Builder
	for _, i := range g.rng.Perm(3)[:stripes] {
		disk := string("abc"[i])
		fmt.Fprintf(&dests, " $%s %d", disk, take(disk, each))
	}
	g.line("\t%d %d striped %d %d%s", start, stripes*each, stripes, chunk, dests.String())
	return stripes * each
}

// atOnce starts writes to different places of devices and waits for all of them.
func (g *generator) atOnce(devs []string, size int) {
	const slots = 16
	n := g.between(2, 6)
	for _, slot := range g.rng.Perm(slots * len(devs))[:n] {
		dev, at := devs[slot/slots], slot%slots*(size/slots)
		sector, count := g.span(size/slots, size)
		switch verb := pick(g, "write", "write", "write", "zero", "flush"); verb {
		case "write":
			g.seed++
			g.line("& write %s %d %d %d", dev, at+sector, count, g.seed)
		case "zero":
			g.line("& zero %s %d %d", dev, at+sector, count)
		default:
			g.line("& flush %s", dev)
		}
	}
	for range n {
		g.line("join")
	}
}

func (g *generator) parallel() {
	if g.rng.IntN(2) == 0 {
		s := newSnapshot(g)
		s.burst = true
		s.script(40)
		return
	}
	t := newThin(g)
	t.burst, t.feature = true, "0" // without zeroing the order of allocation shows
	t.script(40)
}
