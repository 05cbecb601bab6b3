package sim

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	"udm/blk"
	"udm/blk/blktest"
	"udm/ctl"
	"udm/ctl/server/protocol"
	"udm/ctl/server/service"
	"udm/dm"
)

// daemon is a scenario with volumes on disks of their own and in a thin pool. Commands of
// the control protocol make and change them, several at a time. The daemon brings them
// back after each stop, kill and power cut: with every change that it has acknowledged,
// and for a change that was under way, in the state before or after it.
type daemon struct {
	files *filesys
	srv   *service.Service
	devs  *dm.Control // of srv
	slots []*slot
	fails bool // of the daemon's file system
	began bool
}

// slot is a volume that may exist. Its minor number identifies it.
type slot struct {
	minor uint32
	disk  string // "": in the pool
	size  uint64
	model *blktest.Model
	vol   *volume // nil: not open
	// may lists the states that may be saved; the last one is the current state.
	may []saved
}

// saved is the state of a device that the daemon saves; the zero value is no device.
type saved struct {
	name, uuid, live, inactive string
	suspended                  bool
}

func newDaemon(r *rand.Rand) scenario {
	d := &daemon{fails: r.IntN(3) == 0}
	for i := range 6 {
		s := &slot{minor: uint32(10 + i), size: 64 + r.Uint64N(200), may: []saved{{}}}
		if i < 3 {
			s.disk = fmt.Sprintf("s%d", i)
		}
		s.model = blktest.NewModel(s.size)
		d.slots = append(d.slots, s)
	}
	return d
}

func (d *daemon) prepare(w *harness) {
	w.files = newFilesys(w)
	d.files = w.files
	d.files.watch = d.look
	w.disk("meta", 1024)
	w.disk("data", 16*128)
	for _, s := range d.slots {
		if s.disk != "" {
			w.disk(s.disk, s.size)
		}
	}
}

func (d *daemon) start(w *harness) {
	var err error
	d.files.off, d.files.fails, d.srv = false, false, nil
	srv, err := service.New(service.Config{Root: root, Program: "sim", Env: w.sim, Opener: w, FS: d.files, Control: w.c})
	if !w.right(err, "start the daemon") || !w.right(srv.Restore(context.Background()), "restore") {
		return
	}
	d.srv, d.devs = srv, w.c
	if !d.began {
		d.create(w, ctl.Create{Name: "md", Table: "0 1024 linear meta 0"})
		d.create(w, ctl.Create{Name: "data", Table: "0 2048 linear data 0"})
		d.create(w, ctl.Create{Name: "pool", Table: "0 2048 thin-pool /dev/mapper/md /dev/mapper/data 128 0"})
		for _, s := range d.slots[3:] {
			w.right(d.command("message", ctl.Message{Ref: ctl.Ref{Name: "pool"}, Text: fmt.Sprintf("create_thin %d", s.minor)}), "create_thin")
		}
		d.began = true
	}
	d.judge(w)
	d.files.fails = d.fails
}

// judge compares the devices after a start with those that were acknowledged.
func (d *daemon) judge(w *harness) {
	for _, s := range d.slots {
		now := d.now(s)
		if !slices.Contains(s.may, now) {
			w.fail("after a start device %d is\n%+v\ninstead of one of\n%+v", s.minor, now, s.may)
		}
		s.may, s.vol = []saved{now}, nil
		d.open(w, s)
	}
	for _, dev := range w.c.List() {
		n := dev.Number().Minor
		if n > 2 && !slices.ContainsFunc(d.slots, func(s *slot) bool { return s.minor == n }) {
			w.fail("after a start there is a device %d", n)
		}
	}
}

func (d *daemon) device(s *slot) *dm.Device {
	if d.srv == nil {
		return nil
	}
	dev, err := d.devs.Number(dm.Number{Major: dm.Major, Minor: s.minor})
	if err != nil {
		return nil
	}
	return dev
}

// now returns the current state of a slot. A device that is marked for removal is not
// brought back by a start.
func (d *daemon) now(s *slot) saved {
	dev := d.device(s)
	if dev == nil || dev.Status().DeferredRemove {
		return saved{}
	}
	st := dev.Status()
	return saved{st.Name, st.UUID, loaded(dev, false), loaded(dev, true), st.Suspended}
}

func loaded(dev *dm.Device, inactive bool) string {
	specs, mode, ok := dev.Loaded(inactive)
	if !ok {
		return ""
	}
	return fmt.Sprint(mode.Write, specs)
}

// look records the new states of the slots.
func (d *daemon) look() {
	if d.srv == nil {
		return
	}
	for _, s := range d.slots {
		if now := d.now(s); now != s.may[len(s.may)-1] {
			s.may = append(s.may, now)
		}
	}
}

// command sends one command to the daemon.
func (d *daemon) command(name string, in any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	answer := httptest.NewRecorder()
	protocol.Handler(d.srv, slog.New(slog.DiscardHandler)).ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/v1/"+name, strings.NewReader(string(body))))
	if answer.Code == http.StatusOK {
		return nil
	}
	e := new(ctl.Error)
	if err := json.Unmarshal(answer.Body.Bytes(), e); err != nil {
		return err
	}
	return e
}

func (d *daemon) create(w *harness, c ctl.Create) {
	w.right(d.command("create", c), "create %s", c.Name)
}

// control sends up to three commands at the same time, each for another device; all of
// them use the same few names.
func (d *daemon) control(w *harness, r *rand.Rand) {
	left := 0
	for _, i := range r.Perm(len(d.slots))[:1+r.IntN(3)] {
		own := rand.New(rand.NewPCG(r.Uint64(), 5))
		left++
		w.sim.Go("command", func() {
			d.change(w, own, d.slots[i])
			left--
		})
	}
	w.sim.NewWait().Until(func() bool { return left == 0 })
}

// change sends one command for a volume. Once the daemon has acknowledged it, no other
// state may be found after a crash.
func (d *daemon) change(w *harness, r *rand.Rand, s *slot) {
	name, in := d.draw(w, r, s)
	text, _ := json.Marshal(in)
	w.note("device %d: %s %s", s.minor, name, text)
	if name == "remove" { // the daemon removes its file before the device
		s.may = append([]saved{{}}, s.may...)
	}
	before := d.now(s)
	err := d.command(name, in)
	w.note("device %d: %s: %v", s.minor, name, err)
	d.look()
	if e, ok := err.(*ctl.Error); ok && e.Errno == "EIO" && !d.fails {
		w.fail("%s: %v", name, err)
	} else if ok && e.Errno == "ENOSPC" && !d.fails && d.now(s) != before {
		w.fail("%s finds no space, and has happened", name)
	}
	if err == nil || !d.fails {
		s.may = s.may[len(s.may)-1:]
	}
	if s.vol != nil && name == "remove" {
		w.drop(s.vol)
		s.vol = nil
	}
	d.open(w, s)
}

// draw chooses a command, and closes the volume if its users would block the command.
func (d *daemon) draw(w *harness, r *rand.Rand, s *slot) (string, any) {
	name := []string{"a", "b", "c", "d", "e"}[r.IntN(5)]
	dev := d.device(s)
	if dev == nil {
		c := ctl.Create{Name: name, Minor: &s.minor}
		if r.IntN(3) > 0 {
			c.Table = s.table(r)
		}
		if r.IntN(3) == 0 {
			c.UUID = "uuid-" + name
		}
		return "create", c
	}
	ref := ctl.Ref{Number: &ctl.Number{Major: dm.Major, Minor: s.minor}}
	switch k := r.IntN(12); {
	case k < 2:
		return "load", ctl.Load{Ref: ref, Table: s.table(r)}
	case k < 3:
		return "clear", ref
	case k < 6:
		return "resume", ctl.Suspend{Ref: ref}
	case k < 7:
		d.leave(w, s)
		return "suspend", ctl.Suspend{Ref: ref, Noflush: r.IntN(2) == 0}
	case k < 8:
		return "rename", ctl.Rename{Ref: ref, NewUUID: "uuid-" + name}
	case k < 10:
		return "rename", ctl.Rename{Ref: ref, NewName: name}
	case k < 11:
		return "remove", ctl.Remove{Ref: ref, Deferred: true}
	}
	d.leave(w, s)
	return "remove", ctl.Remove{Ref: ref}
}

// table returns a table of the volume, whose lines are drawn anew each time.
func (s *slot) table(r *rand.Rand) string {
	if s.disk == "" {
		return fmt.Sprintf("0 %d thin /dev/mapper/pool %d", s.size, s.minor)
	}
	at := 1 + r.Uint64N(s.size-1)
	return fmt.Sprintf("0 %d linear %s 0\n%d %d linear %s %d", at, s.disk, at, s.size-at, s.disk, at)
}

func (d *daemon) leave(w *harness, s *slot) {
	if s.vol != nil {
		w.drop(s.vol)
		s.vol = nil
	}
}

// open opens a volume for users if it has a table and runs.
func (d *daemon) open(w *harness, s *slot) {
	dev := d.device(s)
	if dev == nil || s.vol != nil {
		return
	}
	if st := dev.Status(); st.Live && !st.Suspended && !st.DeferredRemove {
		s.vol = w.open(dev, s.model)
	}
}

func (d *daemon) verify(*harness) {}

// Report implements state.Opener: the disks have nothing to tell.
func (w *harness) Report(dm.Number) (blk.Report, bool) { return blk.Report{}, false }

// Name returns the name of a disk that is open; see state.Opener.
func (w *harness) Name(n dm.Number) string {
	if n.Major != 7 || int(n.Minor) >= len(w.disks) {
		return ""
	}
	return w.disks[n.Minor].name
}

// impatient: a volume that is no thin one waits for nothing.
func (d *daemon) impatient(v *volume) bool {
	i := slices.IndexFunc(d.slots, func(s *slot) bool { return s.vol == v })
	return i < 0 || d.slots[i].disk != ""
}
