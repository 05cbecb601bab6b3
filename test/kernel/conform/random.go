package conform

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// Kinds are the families of random scripts.
var Kinds = []string{"core", "snapshot", "thin"}

// Random writes a script of one of Kinds; the same seed gives the same text. Nothing in it depends on the order in which a device
// mapper does things at the same time: no table maps two places to one sector, and commands follow one another.
func Random(kind string, seed uint64) string {
	g := &generator{rng: rand.New(rand.NewPCG(seed, uint64(len(kind))))}
	g.line("# random commands: %s, seed %d", kind, seed)
	switch kind {
	case "core":
		g.core()
	case "snapshot":
		g.snapshot()
	case "thin":
		g.thin()
	}
	return g.text.String()
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

// snapshot writes to an origin and two snapshots of it, whose stores are large enough.
func (g *generator) snapshot() {
	const origin = 1024 // sectors
	g.line("needs snapshot snapshot-origin")
	g.line("disk o 512K")
	g.line("disk c 4M")
	g.line("disk d 4M")
	g.line("write $o 0 %d 9000", origin)
	g.line("dmsetup create org --table \"0 %d snapshot-origin $o\"", origin)
	chunk := 8 << g.between(0, 2)
	tables := map[string]string{
		"s": fmt.Sprintf("0 %d snapshot $o $c %s %d", origin, pick(g, "P", "PO"), chunk),
		"t": fmt.Sprintf("0 %d snapshot $o $d %s %d", origin, pick(g, "P", "PO", "N"), 8<<g.between(0, 3)),
	}
	create := func(name string) { // the origin learns the chunk size when it is resumed
		g.line("dmsetup suspend org")
		g.line("dmsetup create %s --table \"%s\"", name, tables[name])
		g.line("dmsetup resume org")
	}
	create("s")
	for i := range 60 {
		if i == 15 {
			create("t")
		}
		devs := []string{"org", "s", "t"}[:2+min(1, i/15)]
		g.io(pick(g, devs...), origin, 100, "write", "write", "write", "read", "flush", "zero")
		if i%12 == 11 {
			g.line("dmsetup status")
		}
		if i == 40 {
			g.line("dmsetup remove s")
			create("s")
		}
	}
	for _, d := range []string{"org", "s", "t"} {
		g.line("read %s 0 %d", d, origin)
	}
	g.line("peek $c %d 512", chunk*SectorSize)
}

// thin writes to thin devices of one pool, takes snapshots of them, discards and deletes.
func (g *generator) thin() {
	const size = 4096 // sectors of a thin device, 32 blocks
	g.line("needs thin-pool thin")
	g.line("disk m 2M")
	g.line("disk d 16M")
	feature := pick(g, "0", "1 skip_block_zeroing", "1 no_discard_passdown", "0")
	pool := fmt.Sprintf("dmsetup create pool --table \"0 32768 thin-pool $m $d 128 0 %s\"", feature)
	g.line("%s", pool)
	g.line("dmsetup message pool 0 create_thin 0")
	g.line("dmsetup create t0 --table \"0 %d thin /dev/mapper/pool 0\"", size)
	devs, next := []int{0}, 1
	name := func(i int) string { return fmt.Sprintf("t%d", devs[i]) }
	for i := range 60 {
		which := g.rng.IntN(len(devs))
		switch act := g.rng.IntN(14); {
		case act == 0 && len(devs) < 5:
			g.line("dmsetup suspend %s", name(which))
			g.line("dmsetup message pool 0 create_snap %d %d", next, devs[which])
			g.line("dmsetup resume %s", name(which))
			g.line("dmsetup create t%d --table \"0 %d thin /dev/mapper/pool %d\"", next, size, next)
			devs = append(devs, next)
			next++
		case act == 1 && len(devs) > 1:
			g.line("dmsetup remove %s", name(which))
			g.line("dmsetup message pool 0 delete %d", devs[which])
			devs = append(devs[:which], devs[which+1:]...)
		default:
			verbs := []string{"write", "write", "write", "read", "discard", "flush", "zero"}
			if feature == "1 skip_block_zeroing" {
				verbs = []string{"write", "flush", "zero"} // what was on the data disk before is seen in new blocks
			}
			g.io(name(which), size, 500, verbs...)
		}
		if i%10 == 9 {
			g.line("flush %s", name(0))
			g.line("dmsetup status")
		}
	}
	for i := range devs {
		g.line("read %s 0 %d", name(i), size)
		g.line("dmsetup remove %s", name(i))
	}
	g.line("dmsetup remove pool")
	g.line("%s", pool)
	g.line("dmsetup status pool")
}
