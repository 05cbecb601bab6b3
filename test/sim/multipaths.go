package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/dm"
	"udm/targets/multipath"
)

// multipaths is a scenario with a disk that several lines lead to, which fail and come
// back. While there is no path I/O waits, so that no error is seen.
type multipaths struct {
	size  uint64
	lines []*line
	model *blktest.Model
}

// line is a way to a disk. What is under way when it fails has happened or not, and is told
// to have failed.
type line struct {
	*disk
	down bool
}

func (l *line) Submit(b *blk.Bio) {
	if l.down {
		b.Complete(blk.Offline)
		return
	}
	c := &blk.Bio{End: func(c *blk.Bio) {
		if l.down {
			b.Complete(blk.Offline)
			return
		}
		b.Complete(c.Status())
	}}
	c.CloneFrom(b)
	l.disk.Submit(c)
}

func newMultipaths(r *rand.Rand) scenario {
	return &multipaths{size: 40 + r.Uint64N(200), lines: make([]*line, 2+r.IntN(2))}
}

func (m *multipaths) prepare(w *harness) {
	d := w.disk("disk", m.size)
	w.lines = map[string]blk.Device{}
	for i := range m.lines {
		m.lines[i] = &line{disk: d}
		w.lines[fmt.Sprintf("line%d", i)] = m.lines[i]
	}
	m.model = blktest.NewModel(m.size)
}

// openLine opens a line by its name.
func (w *harness) openLine(name string) (blk.Device, dm.Number, error) {
	return checkdev.New(w.lines[name], checkdev.Options{}), dm.Number{Major: 8, Minor: uint32(name[len(name)-1] - '0')}, nil
}

// start makes a device in two parts of each line, which cuts bios.
func (m *multipaths) start(w *harness) {
	for i := range m.lines {
		m.lines[i].down = false
		cut := 1 + w.rng.Uint64N(m.size-1)
		w.device(fmt.Sprintf("path%d", i), fmt.Sprintf("0 %d linear line%d 0\n%d %d linear line%d %d", cut, i, cut, m.size-cut, i, cut))
	}
	w.open(w.device("multipath", m.table(w.rng)), m.model)
}

// table has the paths in one group, or the first one in a group of its own.
func (m *multipaths) table(r *rand.Rand) string {
	selector := func() string {
		return []string{"round-robin 0", "queue-length 0", "service-time 0", "historical-service-time 1 800"}[r.IntN(4)]
	}
	t := fmt.Sprintf("0 %d multipath 3 queue_if_no_path polling_interval 1 0 ", m.size)
	first := 0
	if r.IntN(2) == 0 {
		t += fmt.Sprintf("2 %d %s 1 0 /dev/mapper/path0 ", 1+r.IntN(2), selector())
		first = 1
	} else {
		t += "1 1 "
	}
	t += fmt.Sprintf("%s %d 0", selector(), len(m.lines)-first)
	for i := first; i < len(m.lines); i++ {
		t += fmt.Sprintf(" /dev/mapper/path%d", i)
	}
	return t
}

func (m *multipaths) control(w *harness, r *rand.Rand) {
	v := w.volume("multipath")
	if v == nil {
		return
	}
	switch k := r.IntN(12); {
	case k < 5:
		m.breakLines(w, r)
	case k < 7:
		m.messages(w, v, r)
	case k < 9:
		w.pause(v.dev, true, r)
	case k < 10:
		m.mend(w, v)
		w.pause(v.dev, false, r)
	case k < 11:
		m.mend(w, v)
		w.reload(v.dev, m.table(r))
	default:
		w.sleep(time.Duration(r.IntN(3)) * time.Second)
	}
}

// breakLines has some lines, or all, fail for a while.
func (m *multipaths) breakLines(w *harness, r *rand.Rand) {
	for i, l := range m.lines {
		if l.down || r.IntN(3) == 0 {
			continue
		}
		lasts := ms(r, 3000)
		w.note("line %d fails for %v", i, lasts)
		l.down = true
		w.sim.AfterFunc(lasts, func() { l.down = false })
	}
}

// mend brings all lines and paths back: a suspend that flushes, and a reload, do not wait
// for a path.
func (m *multipaths) mend(w *harness, v *volume) {
	for _, l := range m.lines {
		l.down = false
	}
	w.sleep(100 * time.Millisecond) // what has failed is told
	m.reinstate(w, v)
	w.sim.NewWait().Until(func() bool { return m.usable(v) })
}

func (m *multipaths) usable(v *volume) bool {
	s, err := multipath.ParseStatus(v.dev.Lines(dm.Info, false, 0)[0].Params)
	if err != nil {
		return true
	}
	for _, g := range s.Groups {
		for _, p := range g.Paths {
			if p.Failed {
				return false
			}
		}
	}
	return true
}

func (m *multipaths) reinstate(w *harness, v *volume) {
	for i := range m.lines {
		m.message(w, v, fmt.Sprintf("reinstate_path /dev/mapper/path%d", i))
	}
}

func (m *multipaths) message(w *harness, v *volume, text string) {
	w.note("message %s", text)
	_, err := v.dev.Message(0, text)
	w.note("%v", err) // there may be one group only
}

// messages has paths fail that work, and others be used.
func (m *multipaths) messages(w *harness, v *volume, r *rand.Rand) {
	for range 1 + r.IntN(4) {
		m.message(w, v, fmt.Sprintf([]string{"fail_path /dev/mapper/path%d", "switch_group %d", "disable_group %d", "enable_group %d"}[r.IntN(4)], r.IntN(len(m.lines))))
		w.sleep(ms(r, 20))
	}
	m.reinstate(w, v)
}

func (m *multipaths) verify(*harness) {}

// impatient: nothing in the stack waits for space.
func (m *multipaths) impatient(*volume) bool { return true }
