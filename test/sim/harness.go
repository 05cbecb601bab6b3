package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// harness runs one history. It holds the state that outlives power cuts and the
// stack of the current round.
type harness struct {
	seed  uint64
	rng   *rand.Rand // draws the shape of the history
	skip  func(op int) bool
	ops   int // operations drawn so far
	disks []*disk
	lines map[string]blk.Device // ways to a disk; nil: none
	files *filesys              // of the daemon; nil: there is none
	host  *host                 // where the disks lie; nil: it always has space
	sc    scenario

	sim  *env.Sim
	c    *dm.Control
	vols []*volume
	// models are those of all volumes that ever existed: a power cut also affects
	// a volume that is not open.
	models []*blktest.Model
	busy   bool // a control operation is in progress
	// faulty: errors are injected, or expected for another reason. I/O and control
	// operations may fail, but every successful read must return legal content.
	faulty   bool
	injects  bool // errors are injected into disks
	breaking bool // errors are being injected now
	calm     bool // no errors while a control operation is in progress
	// lossy: unflushed data may be lost without a power cut, because a pool aborts
	// its transaction if its disks fail
	lossy bool
	// hard: discards may cover many whole blocks, and some bios take long at the
	// disk while other operations continue
	hard bool
	far  bool // disks lose their connections, and are out of reach for a while
	// limited: the volumes' users are limited
	limited   bool
	throttles []*dm.Throttle // of this round: that of the group, and each volume's own
	last      bool           // no start after this round: the disks are damaged
	begun     bool           // a round has begun since the last power cut
	trace     []string
	errs      []string
	stats     counts
}

// counts are the statistics of a history.
type counts struct{ ops, reads, writes, cuts, holes int }

// scenario is a kind of stack.
type scenario interface {
	// prepare makes the disks and their content for the first start.
	prepare(w *harness)
	// start builds the stack from the content of the disks and opens its volumes
	// with w.open. It runs as a task.
	start(w *harness)
	// control performs one control operation, concurrently with the I/O. It runs
	// as a task.
	control(w *harness, r *rand.Rand)
	// verify checks on-disk state after an orderly stop.
	verify(w *harness)
}

func (w *harness) fail(format string, args ...any) {
	w.errs = append(w.errs, fmt.Sprintf(format, args...))
}

func (w *harness) note(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%10v ", w.sim.Now())+fmt.Sprintf(format, args...))
}

// must reports whether an operation that should succeed did. Its error is a finding,
// unless errors are expected.
func (w *harness) must(err error, what string, args ...any) bool {
	if err != nil && w.faulty {
		w.note("%s: %v", fmt.Sprintf(what, args...), err)
		return false
	}
	return w.right(err, what, args...)
}

// right is must for operations that must succeed even if errors are expected.
func (w *harness) right(err error, what string, args ...any) bool {
	if err != nil {
		w.fail("%s: %v", fmt.Sprintf(what, args...), err)
	}
	return err == nil
}

func (w *harness) disk(name string, sectors uint64) *disk {
	d := newDisk(name, sectors, w.rng)
	if w.injects {
		d.broken = w.breaks(d)
	}
	d.stalls, d.host = w.hard, w.host
	w.disks = append(w.disks, d)
	return d
}

// Open makes the harness a dm.Opener. It finds disks by name or number.
func (w *harness) Open(name string, write bool) (blk.Device, dm.Number, error) {
	if w.lines[name] != nil {
		return w.openLine(name)
	}
	i := slices.IndexFunc(w.disks, func(d *disk) bool { return d.name == name })
	if w.files != nil && w.files.names[name] != nil {
		i = slices.Index(w.disks, w.files.names[name].disk)
	}
	if i < 0 {
		i = slices.IndexFunc(w.disks, func(d *disk) bool { return name == fmt.Sprintf("7:%d", slices.Index(w.disks, d)) })
	}
	if i < 0 {
		return nil, dm.Number{}, dm.Errorf(syscall.ENODEV, "no disk %s", name)
	}
	return checkdev.New(w.disks[i], checkdev.Options{}), dm.Number{Major: 7, Minor: uint32(i)}, nil
}

// boot turns the power on and starts the stack.
func (w *harness) boot() {
	w.sim = env.NewSim(w.rng.Uint64())
	if w.host != nil {
		w.host.empty()
	}
	for _, d := range w.disks {
		d.on(w.sim)
	}
	w.c = dm.NewControl(w.sim, w, all.Types()...)
	w.vols, w.busy, w.throttles = nil, false, nil
	w.note("start")
	w.task(func() { w.sc.start(w) })
}

// task runs fn as a task and returns after its end. Everything else continues meanwhile.
func (w *harness) task(fn func()) {
	done := false
	w.sim.Go("task", func() { fn(); done = true })
	w.until(func() bool { return done })
}

// patience is how long anything may take, in virtual time: more than any timeout
// of a stack.
const patience = 10 * time.Minute

// maxSteps is the most steps without progress of the virtual time.
const maxSteps = 300_000

// until waits for cond; its caller is not a task. If cond stays false for longer than
// patience, although timers still fire, or for more than maxSteps, the history hangs:
// the panic is the finding, as one of a deadlock is (see live).
func (w *harness) until(cond func() bool) {
	start, last, steps := w.sim.Now(), w.sim.Now(), 0
	w.sim.NewWait().Until(func() bool {
		if steps++; w.sim.Now() > last {
			last, steps = w.sim.Now(), 0
		}
		return cond() || last > start+patience || steps > maxSteps
	})
	if !cond() {
		panic("hangs: " + w.listInFlight() + w.sim.String())
	}
}

// device makes a running device of table lines joined by "\n".
func (w *harness) device(name, table string) *dm.Device {
	d, err := w.c.Create(name, "", -1)
	if !w.must(err, "create %s", name) {
		return nil
	}
	if !w.reload(d, table) {
		_, err := d.Remove(false)
		w.must(err, "remove %s", name)
		return nil
	}
	return d
}

func (w *harness) reload(d *dm.Device, table string) bool {
	specs, err := dm.ParseTable(table)
	return w.must(err, "table %q", table) &&
		w.must(w.trying(func() error { return d.Load(specs, dm.Mode{Write: true}) }), "load %q", table) &&
		w.must(w.trying(func() error { return d.Resume(context.Background(), false) }), "resume %q", table)
}

// sleep waits in virtual time, within a task.
func (w *harness) sleep(d time.Duration) {
	over := false
	w.sim.AfterFunc(d, func() { over = true })
	w.sim.NewWait().Until(func() bool { return over })
}

// quiet waits until no I/O of users and no control operation is under way.
func (w *harness) quiet() {
	w.until(func() bool {
		return !w.busy && !slices.ContainsFunc(w.vols, func(v *volume) bool { return len(v.inFlight) > 0 })
	})
}

// ender is a scenario that ends what goes on by itself before the devices are closed.
type ender interface{ end() }

// stop ends the round in order.
func (w *harness) stop() {
	w.quiet()
	w.task(func() {
		if e, ok := w.sc.(ender); ok {
			e.end()
		}
		for _, v := range slices.Clone(w.vols) {
			w.flush(v)
			w.drop(v)
		}
		w.unlimit()
		w.must(w.c.Close(), "stop")
	})
	w.sim.Run()
	w.note("stopped")
	if w.lossy {
		for _, m := range w.models {
			m.Doubt()
		}
	}
}

// cut ends the round with a power cut or the death of the process, after which the disks
// have all that has happened, and a later power cut may still take what was not flushed.
func (w *harness) cut() {
	killed := w.rng.IntN(4) == 0
	w.note("power cut; killed=%v", killed)
	w.stats.cuts++
	w.begun = false
	for _, m := range w.models {
		if killed {
			m.Doubt()
		} else {
			m.Crash()
		}
	}
	for _, d := range w.disks {
		d.cut(killed)
	}
	if w.files != nil {
		w.files.cut(killed, w.rng)
	}
	w.sim.Close()
}

func (w *harness) report() string {
	n := max(0, len(w.trace)-200)
	return fmt.Sprintf("seed %d:\n%s\nlast steps:\n%s", w.seed, strings.Join(w.errs, "\n"), strings.Join(w.trace[n:], "\n"))
}
