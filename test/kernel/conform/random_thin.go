//go:build unix

package conform

import (
	"fmt"
	"slices"
)

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
