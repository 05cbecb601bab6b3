package conform

import (
	"fmt"
	"math/rand/v2"
	"slices"
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

// snapshots are an origin and two snapshots of it, whose stores are large enough.
type snapshots struct {
	*generator
	began  bool
	burst  bool // several writes at a time
	chunk  int  // sectors
	tables map[string]string
}

const originSize = 1024 // sectors

func newSnapshot(g *generator) *snapshots {
	chunk := 8 << g.between(0, 2)
	return &snapshots{generator: g, chunk: chunk, tables: map[string]string{
		"s": fmt.Sprintf("0 %d snapshot $o $c %s %d", originSize, pick(g, "P", "PO"), chunk),
		"t": fmt.Sprintf("0 %d snapshot $o $d %s %d", originSize, pick(g, "P", "PO"), 8<<g.between(0, 3)),
	}}
}

// create makes a snapshot. The origin learns its chunk size when it is resumed.
func (g *snapshots) create(name string) {
	g.line("dmsetup suspend org")
	g.line("dmsetup create %s --table \"%s\"", name, g.tables[name])
	g.line("dmsetup resume org")
}

func (g *snapshots) script(steps int) {
	g.line("needs snapshot snapshot-origin")
	g.line("disk o 512K")
	g.line("disk c 4M")
	g.line("disk d 4M")
	if !g.began {
		g.line("write $o 0 %d 9000", originSize)
	}
	g.line("dmsetup create org --table \"0 %d snapshot-origin $o\"", originSize)
	g.create("s")
	devs := []string{"org", "s"}
	for i := range steps {
		if i == steps/4 && !g.began || i == 0 && g.began {
			g.create("t")
			devs = append(devs, "t")
		}
		if g.burst && i%3 == 0 {
			g.atOnce(devs, originSize)
		}
		g.io(pick(g.generator, devs...), originSize, 100, "write", "write", "write", "read", "flush", "zero")
		if i%12 == 11 {
			g.line("dmsetup status")
		}
		if i == steps*2/3 {
			g.line("dmsetup remove s")
			g.create("s")
		}
	}
	g.began = true
	for _, d := range devs {
		g.line("read %s 0 %d", d, originSize)
	}
	if !g.burst { // the order of exceptions
		g.line("peek $c %d 512", g.chunk*SectorSize)
	}
	g.line("dmsetup status")
	for _, d := range devs {
		g.line("dmsetup remove %s", d)
	}
}

// thins are thin devices of one pool and snapshots of them.
type thins struct {
	*generator
	feature string
	burst   bool  // several writes at a time
	devs    []int // ids; device i is called t<i>
	next    int   // id
}

const thinSize = 4096 // sectors of a thin device, 32 blocks

func newThin(g *generator) *thins {
	return &thins{generator: g, feature: pick(g, "0", "1 skip_block_zeroing", "1 no_discard_passdown", "0")}
}

func (g *thins) create(id int) {
	g.line("dmsetup create t%d --table \"0 %d thin /dev/mapper/pool %d\"", id, thinSize, id)
}

func (g *thins) pool() {
	g.line("dmsetup create pool --table \"0 32768 thin-pool $m $d 128 0 %s\"", g.feature)
}

func (g *thins) script(steps int) {
	g.line("needs thin-pool thin")
	g.line("disk m 2M")
	g.line("disk d 16M")
	g.pool()
	if g.next == 0 {
		g.line("dmsetup message pool 0 create_thin 0")
		g.devs, g.next = []int{0}, 1
	}
	for _, id := range g.devs {
		g.create(id)
	}
	for i := range steps {
		g.step()
		if g.burst && i%3 == 0 {
			var devs []string
			for _, id := range g.devs {
				devs = append(devs, fmt.Sprintf("t%d", id))
			}
			g.atOnce(devs, thinSize)
		}
		if i%10 == 9 {
			g.line("flush t%d", g.devs[0])
			g.line("dmsetup status")
		}
	}
	for _, id := range g.devs {
		g.line("read t%d 0 %d", id, thinSize)
		g.line("dmsetup remove t%d", id)
	}
	g.line("dmsetup remove pool")
	g.pool()
	g.line("dmsetup status pool")
	g.line("dmsetup remove pool")
}

// step takes a snapshot, deletes a device or accesses one.
func (g *thins) step() {
	which := g.rng.IntN(len(g.devs))
	id := g.devs[which]
	switch act := g.rng.IntN(14); {
	case act == 0 && len(g.devs) < 5:
		g.line("dmsetup suspend t%d", id)
		g.line("dmsetup message pool 0 create_snap %d %d", g.next, id)
		g.line("dmsetup resume t%d", id)
		g.create(g.next)
		g.devs = append(g.devs, g.next)
		g.next++
	case act == 1 && len(g.devs) > 1:
		g.line("dmsetup remove t%d", id)
		g.line("dmsetup message pool 0 delete %d", id)
		g.devs = slices.Delete(g.devs, which, which+1)
	default:
		g.io(fmt.Sprintf("t%d", id), thinSize, 500, "write", "write", "write", "read", "discard", "flush", "zero")
	}
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

// overflow fills small stores.
func (g *generator) overflow() {
	g.line("needs snapshot snapshot-origin")
	g.line("disk o 512K")
	g.line("disk c %dK", g.between(20, 100))
	g.line("write $o 0 %d 9000", originSize)
	g.line("dmsetup create org --table \"0 %d snapshot-origin $o\"", originSize)
	s := &snapshots{generator: g, tables: map[string]string{
		"s": fmt.Sprintf("0 %d snapshot $o $c %s 8", originSize, pick(g, "P", "PO", "N")),
	}}
	s.create("s")
	for range 30 {
		g.io(pick(g, "org", "s", "s"), originSize, 20, "write", "write", "read")
		g.line("dmsetup status s")
	}
	g.line("read org 0 %d", originSize)
	g.line("peek $c 0 16")
	g.line("dmsetup remove s")
	s.create("s")
	g.line("dmsetup status s")
	g.line("read s 0 %d", originSize)
}

// merge writes to a snapshot and merges it while more is written.
func (g *generator) merge() {
	const store = 8192 // sectors
	g.line("needs snapshot snapshot-origin snapshot-merge")
	g.line("disk o 512K")
	g.line("disk c 4M")
	g.line("write $o 0 %d 9000", originSize)
	chunk := 8 << g.between(0, 2)
	table := fmt.Sprintf("$o $c %s %d", pick(g, "P", "PO"), chunk)
	g.line("dmsetup create s --table \"0 %d snapshot %s\"", originSize, table)
	for range 20 {
		g.io("s", originSize, 100, "write", "write", "zero", "read")
	}
	g.line("dmsetup status s")
	g.line("dmsetup suspend s")
	g.line("dmsetup reload s --table \"0 %d snapshot-merge %s\"", originSize, table)
	g.line("dmsetup resume s")
	for range 10 {
		g.io("s", originSize, 100, "write", "write", "read")
	}
	g.line("eventually \"0 %d snapshot-merge %d/%d %d\" dmsetup status s", originSize, 2*chunk, store, 2*chunk)
	g.line("read s 0 %d", originSize)
	g.line("dmsetup remove s")
	g.line("read $o 0 %d", originSize)
}
