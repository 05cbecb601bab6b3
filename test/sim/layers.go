package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	logwrites "udm/targets/log-writes"
)

// layers is plain with devices in between that do not change the content: a striped
// device that unstriped ones take apart and another one puts together again, switch with
// two paths to one device, dust, flakey, delay, ebs, multipath, and log-writes, whose log is replayed at
// the end and must give the content of the device.
type layers struct {
	*plain
	kinds []string
	join  bool           // the disks follow each other instead of being striped
	held  *memdev.Device // content of the logged device when the log began; nil: none
}

const logSectors = 1 << 14

func newLayers(r *rand.Rand) scenario {
	l := &layers{plain: newPlain(r).(*plain), join: r.IntN(2) == 0}
	for range 1 + r.IntN(4) {
		l.kinds = append(l.kinds, []string{"unstriped", "switch", "dust", "flakey", "delay", "ebs", "multipath"}[r.IntN(7)])
	}
	if r.IntN(3) == 0 {
		l.kinds = append(l.kinds, "log-writes")
	}
	return l
}

func (l *layers) prepare(w *harness) {
	l.plain.prepare(w)
	w.disk("log", logSectors)
}

func (l *layers) start(w *harness) {
	low := "low"
	if l.join {
		n := l.most / 3
		w.device(low, fmt.Sprintf("0 %d linear d0 8\n%d %d linear d1 16\n%d %d linear d2 24", n, n, n, 2*n, n))
	} else {
		w.device(low, l.lowTable())
	}
	for i, kind := range l.kinds {
		low = l.layer(w, kind, low, i)
	}
	l.plain.low = low
	w.open(w.device("top", l.table()), l.model)
}

// layer makes a device with the content of the one below.
func (l *layers) layer(w *harness, kind, below string, i int) string {
	name := fmt.Sprintf("%s%d", kind, i)
	path := "/dev/mapper/" + below
	table := fmt.Sprintf("0 %d %s ", l.most, kind)
	switch kind {
	case "unstriped":
		table = fmt.Sprintf("0 %d striped 3 %d", l.most, l.chunk)
		for stripe := range 3 {
			part := fmt.Sprintf("%s-%d", name, stripe)
			w.device(part, fmt.Sprintf("0 %d unstriped 3 %d %d %s 0", l.most/3, l.chunk, stripe, path))
			table += fmt.Sprintf(" /dev/mapper/%s 0", part)
		}
	case "switch":
		table += fmt.Sprintf("2 8 0 %s 0 %s 0", path, path)
	case "dust":
		table += path + " 0 512"
	case "flakey":
		table += path + " 0 1 0"
	case "ebs":
		table += path + " 0 1 8"
	case "multipath":
		table += fmt.Sprintf("0 0 1 1 queue-length 0 2 0 %s %s", path, path)
	case "delay":
		table += path + " 0 1"
	case "log-writes":
		table += path + " log"
		l.remember(w, below)
	}
	w.device(name, table)
	return name
}

// control sends messages that do not change the content, too.
func (l *layers) control(w *harness, r *rand.Rand) {
	if r.IntN(2) == 0 {
		l.plain.control(w, r)
		return
	}
	i := r.IntN(len(l.kinds))
	text := ""
	switch l.kinds[i] {
	case "switch":
		text = fmt.Sprintf("set_region_mappings %x:%x", r.Uint64N((l.most+7)/8), r.IntN(2))
	case "dust":
		text = fmt.Sprintf("%s %d", []string{"addbadblock", "removebadblock", "queryblock"}[r.IntN(3)], r.Uint64N(l.most))
	case "log-writes":
		text = "mark here"
	default:
		return
	}
	if d, err := w.c.Name(fmt.Sprintf("%s%d", l.kinds[i], i)); w.must(err, "find layer %d", i) {
		w.note("message %s: %s", d.Name(), text)
		_, err := d.Message(0, text)
		w.note("%v", err) // dust fails if a block is in its list already
	}
}

// remember reads the content of the logged device when the log begins.
func (l *layers) remember(w *harness, below string) {
	l.held = nil
	d, err := w.c.Name(below)
	if !w.must(err, "find %s", below) {
		return
	}
	h, err := d.Open(false)
	if !w.must(err, "open %s", below) {
		return
	}
	p := make([]byte, l.most*blk.SectorSize)
	if w.must(blk.ReadSectors(w.sim, checkdev.New(h, checkdev.Options{}), p, 0), "read %s", below) {
		l.held = memdev.New(l.most)
		w.must(blk.WriteSectors(w.sim, l.held, p, 0, 0), "keep %s", below)
	}
	w.must(h.Close(), "close %s", below)
}

// verify replays the log of the last round, if there is one, onto the content from the
// beginning of that round: the result is the content of the volume.
func (l *layers) verify(w *harness) {
	if l.held == nil || w.faulty {
		return
	}
	d, _, err := w.Open("log", false)
	if !w.right(err, "open log") {
		return
	}
	log := make([]byte, logSectors*blk.SectorSize)
	if !w.right(blk.ReadSectors(w.sim, d, log, 0), "read log") || !w.right(l.replay(w, bytes.NewReader(log)), "replay log") {
		return
	}
	p := make([]byte, l.model.Sectors()*blk.SectorSize)
	w.right(blk.ReadSectors(w.sim, l.held, p, 0), "read what was replayed")
	w.right(l.model.Check(p, 0), "content of the replayed log")
}

func (l *layers) replay(w *harness, log io.ReaderAt) error {
	r, err := logwrites.OpenLog(log)
	if err != nil {
		return err
	}
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			w.note("replay %v", e)
			err = e.Replay(w.sim, l.held)
		}
		if err != nil {
			return err
		}
	}
}
