package sim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/mirror"
)

// mirrors is a scenario with a mirror of two or three legs, whose log is on a disk or in
// memory. Writes that a failure has made it hold are let go by a suspend, as LVM does.
type mirrors struct {
	size, region uint64
	legs         int
	core         bool
	features     string
	model        *blktest.Model
}

func newMirrors(r *rand.Rand) scenario {
	return &mirrors{size: 40 + r.Uint64N(200), region: 4 << r.Uint64N(4), legs: 2 + r.IntN(2), core: r.IntN(4) == 0}
}

func (m *mirrors) prepare(w *harness) {
	w.disk("log", 16)
	for i := range m.legs {
		w.disk(fmt.Sprintf("leg%d", i), m.size+uint64(i))
	}
	m.model = blktest.NewModel(m.size)
	if w.injects {
		m.features = " 1 handle_errors"
	}
}

func (m *mirrors) start(w *harness) {
	d := w.device("mirror", m.table())
	if d == nil {
		return
	}
	v := w.open(d, m.model)
	if w.injects {
		w.sim.Go("monitor", func() { m.monitor(w, v) })
	}
}

// monitor loads the table again when something has failed: writes and flushes may be held.
func (m *mirrors) monitor(w *harness, v *volume) {
	for w.volume("mirror") == v {
		w.sleep(500 * time.Millisecond)
		if w.busy || v.dev.Status().Suspended || !m.failed(v) {
			continue
		}
		w.busy = true
		if w.must(v.dev.Suspend(context.Background(), w.ops%2 == 0), "suspend mirror") && !w.reload(v.dev, m.table()) {
			w.must(v.dev.Resume(context.Background(), false), "resume mirror")
		}
		w.busy = false
	}
}

// failed reports whether a leg or the log has failed.
func (m *mirrors) failed(v *volume) bool {
	lines := v.dev.Lines(dm.Info, false, 0)
	if len(lines) == 0 {
		return false // the stack is being stopped
	}
	s, err := mirror.ParseStatus(lines[0].Params)
	return err != nil || s.Log != "" && s.LogHealth != 'A' || slices.ContainsFunc(s.Legs, func(l mirror.Leg) bool { return l.Health != 'A' })
}

func (m *mirrors) table() string {
	log := fmt.Sprintf("disk 2 log %d", m.region)
	if m.core {
		log = fmt.Sprintf("core 1 %d", m.region)
	}
	legs := ""
	for i := range m.legs {
		legs += fmt.Sprintf(" leg%d %d", i, i)
	}
	return fmt.Sprintf("0 %d mirror %s %d%s%s", m.size, log, m.legs, legs, m.features)
}

func (m *mirrors) control(w *harness, r *rand.Rand) {
	v := w.volume("mirror")
	if v == nil {
		return
	}
	switch k := r.IntN(8); {
	case k < 3:
		w.pause(v.dev, r.IntN(2) == 0, r)
	case k < 5:
		w.reload(v.dev, m.table())
	case k < 6:
		w.sleep(time.Duration(1+r.IntN(30)) * 100 * time.Millisecond)
	default:
		m.write(w, v, r)
	}
}

// write fills some regions, so that many are dirty at the same time.
func (m *mirrors) write(w *harness, v *volume, r *rand.Rand) {
	for range 1 + r.IntN(5) {
		at := r.Uint64N(m.size)
		s := span{at, min(1+r.Uint64N(2*m.region), m.size-at)}
		if v.touched(s) || v.gone {
			continue
		}
		seed := r.Uint64() | 1
		b := &blk.Bio{Op: blk.Write, Sector: s.sector, Sectors: s.sectors}
		b.SetBufs(chop(r, blktest.Pattern(s.sector, s.sectors, seed)), s.sectors)
		w.change(v, b, seed)
	}
}

// verify: what the log has as clean is alike on all legs.
func (m *mirrors) verify(w *harness) {
	if m.core {
		return
	}
	log := m.content(w, "log", 0, 4)
	if log == nil || binary.LittleEndian.Uint32(log) != 0x4D695272 {
		return // it never began
	}
	first := m.content(w, "leg0", 0, m.size)
	for i := 1; i < m.legs && first != nil; i++ {
		p := m.content(w, fmt.Sprintf("leg%d", i), uint64(i), m.size)
		for s := uint64(0); p != nil && s < m.size; s++ {
			bit := s / m.region
			clean := log[1024+bit/8]>>(bit%8)&1 != 0
			if a, b := p[s*blk.SectorSize:][:blk.SectorSize], first[s*blk.SectorSize:][:blk.SectorSize]; clean && !bytes.Equal(a, b) {
				w.fail("sector %d of a clean region differs on leg %d", s, i)
				break
			}
		}
	}
}

func (m *mirrors) content(w *harness, name string, sector, sectors uint64) []byte {
	d, _, err := w.Open(name, false)
	if !w.right(err, "open %s", name) {
		return nil
	}
	p := make([]byte, sectors*blk.SectorSize)
	if !w.right(blk.ReadSectors(w.sim, d, p, sector), "read %s", name) {
		return nil
	}
	return p
}

// impatient: nothing in the stack waits for space.
func (m *mirrors) impatient(*volume) bool { return true }
