package sim

import (
	"slices"
	"strings"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/dm"
)

// volume is a device that users write to, with the model of its content.
type volume struct {
	name     string
	dev      *dm.Device
	h        blk.Device
	model    *blktest.Model
	inFlight []*request // bios in flight, oldest first; their ranges do not overlap
	gone     bool       // being removed: no new I/O
	faulty   bool       // errors are expected
}

// request is a bio in flight.
type request struct {
	span
	barrier bool
	text    string
}

type span struct{ sector, sectors uint64 }

// listInFlight names the bios in flight.
func (w *harness) listInFlight() string {
	var b strings.Builder
	for _, v := range w.vols {
		for _, r := range v.inFlight {
			b.WriteString(r.text + ", ")
		}
	}
	return b.String()
}

// open adds a volume for users. A nil model stands for a disk of zeroes.
func (w *harness) open(d *dm.Device, m *blktest.Model) *volume {
	if d == nil {
		return nil
	}
	if w.limited {
		w.limit(d)
	}
	h, err := d.Open(true)
	if !w.must(err, "open %s", d.Name()) {
		return nil
	}
	if m == nil {
		m = blktest.NewModel(h.Limits().Size)
	}
	// As below an export, bios go through a checkdev.
	v := &volume{name: d.Name(), dev: d, h: checkdev.New(h, checkdev.Options{}), model: m, faulty: w.faulty}
	w.vols = append(w.vols, v)
	if !slices.Contains(w.models, m) {
		w.models = append(w.models, m)
	}
	return v
}

// drop closes a volume once its I/O is done.
func (w *harness) drop(v *volume) {
	v.gone = true
	w.sim.NewWait().Until(func() bool { return len(v.inFlight) == 0 })
	v.h.Close()
	w.vols = slices.DeleteFunc(w.vols, func(o *volume) bool { return o == v })
}

// check compares what was read from sector on with the model.
func (w *harness) check(v *volume, p []byte, sector uint64) error {
	if w.lossy && w.begun {
		return v.model.CheckAny(p, sector)
	}
	return v.model.Check(p, sector)
}

func (w *harness) volume(name string) *volume {
	for _, v := range w.vols {
		if v.name == name && !v.gone {
			return v
		}
	}
	return nil
}

func (w *harness) flush(v *volume) {
	token := v.model.FlushBegin()
	if w.must(w.trying(func() error { return blk.FlushDevice(w.sim, v.h) }), "flush %s", v.name) {
		v.model.FlushEnd(token)
	}
}
