package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"udm/blk/blktest"
	"udm/dm"
)

// plain is a scenario with a linear device on a striped one on disks, with both kinds of
// suspends, reloads of the same mapping in other lines, and other sizes.
type plain struct {
	chunk  uint64
	model  *blktest.Model
	parts  uint64 // number of linear lines of the top, about
	length uint64 // of the top, in sectors
	most   uint64 // length of the striped device below, in sectors
	low    string // name of the device below the top
}

func newPlain(r *rand.Rand) scenario {
	chunk := uint64(1 + r.IntN(16))
	rows := uint64(4 + r.IntN(20))
	length := chunk * rows * 3
	return &plain{chunk: chunk, parts: 1 + uint64(r.IntN(4)), length: length, most: length, low: "low"}
}

func (p *plain) prepare(w *harness) {
	for i := range 3 {
		w.disk(fmt.Sprintf("d%d", i), 4096)
	}
	p.model = blktest.NewModel(p.length)
}

func (p *plain) start(w *harness) {
	w.device("low", p.lowTable())
	top := w.device("top", p.table())
	w.open(top, p.model)
}

func (p *plain) lowTable() string {
	return fmt.Sprintf("0 %d striped 3 %d d0 8 d1 16 d2 24", p.most, p.chunk)
}

// table maps the top onto the device below in a number of lines.
func (p *plain) table() string {
	var lines []string
	step := max(1, p.length/p.parts)
	for at := uint64(0); at < p.length; {
		n := min(step, p.length-at)
		lines = append(lines, fmt.Sprintf("%d %d linear /dev/mapper/%s %d", at, n, p.low, at))
		at += n
	}
	return strings.Join(lines, "\n")
}

func (p *plain) control(w *harness, r *rand.Rand) {
	name := []string{"low", "top"}[r.IntN(2)]
	d, err := w.c.Name(name)
	if !w.must(err, "find %s", name) {
		return
	}
	switch r.IntN(4) {
	case 0:
		p.resize(w, r)
	case 1:
		p.parts = 1 + uint64(r.IntN(5))
		top, _ := w.c.Name("top")
		w.note("reload top in %d lines", p.parts)
		w.reload(top, p.table())
	default:
		w.pause(d, r.IntN(2) == 0, r)
	}
}

// resize changes the size of the top while nobody uses it.
func (p *plain) resize(w *harness, r *rand.Rand) {
	v := w.volume("top")
	v.gone = true
	w.sim.NewWait().Until(func() bool { return len(v.inFlight) == 0 })
	p.length = 1 + r.Uint64N(p.most)
	p.model.Resize(p.length)
	w.note("resize top to %d sectors", p.length)
	w.reload(v.dev, p.table())
	v.gone = false
}

// pause suspends d for a while.
func (w *harness) pause(d *dm.Device, noflush bool, r *rand.Rand) {
	w.note("suspend %s noflush=%v", d.Name(), noflush)
	if !w.must(d.Suspend(context.Background(), noflush), "suspend %s", d.Name()) {
		return
	}
	w.sleep(ms(r, 5))
	w.must(w.trying(func() error { return d.Resume(context.Background(), noflush) }), "resume %s", d.Name())
	w.note("resumed %s", d.Name())
}

// pauseSurely is pause for targets that cannot be resumed while disks fail. lower is a disk
// as long as d.
func (w *harness) pauseSurely(d *dm.Device, noflush bool, r *rand.Rand, lower string) {
	w.pause(d, noflush, r)
	w.resumeSurely(d, lower)
}

// loadSurely loads a table into d and resumes it.
func (w *harness) loadSurely(d *dm.Device, table, lower string) {
	if !w.reload(d, table) {
		w.resumeSurely(d, lower)
	}
}

// resumeSurely resumes a device that a failed command has left suspended, while no disk
// fails. If even that fails, its metadata are lost for this round, and all I/O fails.
// (A table of type error has no cache to flush: a flush would succeed after writes that
// were lost with the metadata.)
func (w *harness) resumeSurely(d *dm.Device, lower string) {
	if !d.Status().Suspended {
		return
	}
	w.calm = true
	defer func() { w.calm = false }()
	if err := w.trying(func() error { return d.Resume(context.Background(), false) }); err != nil {
		w.note("%v", err)
		fails := []dm.Spec{{Len: d.Limits().Size, Type: "flakey", Params: lower + " 0 0 1"}}
		w.right(d.Load(fails, dm.Mode{Write: true}), "load a failing table")
		w.right(d.Resume(context.Background(), false), "resume a failing table")
	}
}

func (p *plain) verify(*harness) {}

// impatient: nothing in the stack waits for space.
func (p *plain) impatient(*volume) bool { return true }
