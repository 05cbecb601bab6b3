//go:build unix

package conform

import "fmt"

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
