package sim

import (
	"math/rand/v2"
	"time"

	"udm/blk"
	"udm/blk/memdev"
	"udm/env"
)

// disk is a simulated disk: a memory disk with a volatile cache behind a queue
// that delays and reorders. It belongs to one simulator at a time.
type disk struct {
	name    string
	mem     *memdev.Device
	sim     *env.Sim
	rng     *rand.Rand
	slow    time.Duration             // latencies are shorter
	stalls  bool                      // some bios take much longer
	pending []*blk.Bio                // submitted and not yet carried out
	off     bool                      // the power is off
	lost    bool                      // the connection to it is
	session int                       // counts the connections
	broken  func(*blk.Bio) blk.Status // injects errors; may be nil
	spared  func(*blk.Bio) bool       // reports whether a bio never fails; nil: any may fail
	changed func()                    // called after every change and flush; may be nil
	host    *host                     // where it lies; nil: it has all its space
	taken   []bool                    // pages that have space there
}

func newDisk(name string, sectors uint64, rng *rand.Rand) *disk {
	fua := rng.IntN(2) == 0
	mem := memdev.New(sectors, memdev.Volatile, memdev.Tune(func(l *blk.Limits) { l.FUA = fua; l.NoWait = false }))
	return &disk{name: name, mem: mem, rng: rng, slow: time.Duration(rng.IntN(5)) * time.Millisecond}
}

// Submit carries b out after a random time.
func (d *disk) Submit(b *blk.Bio) {
	if d.off {
		return
	}
	d.pending = append(d.pending, b)
	if !d.lost {
		d.send(b)
	}
}

// send has b carried out after a random time, if the connection lasts.
func (d *disk) send(b *blk.Bio) {
	var wait time.Duration
	if d.slow > 0 {
		wait = time.Duration(d.rng.Int64N(int64(d.slow)))
	}
	if d.stalls && d.rng.IntN(12) == 0 {
		wait += time.Duration(d.rng.Int64N(int64(30 * time.Millisecond)))
	}
	session := d.session
	d.sim.AfterFunc(wait, func() {
		if session == d.session {
			d.finish(b)
		}
	})
}

// disconnect loses the connection for some time. Of what has no answer, each write has
// happened or not; it is sent again over the next connection, with what waits for that.
func (d *disk) disconnect(lasts time.Duration) {
	if d.lost {
		return
	}
	d.lost = true
	d.session++
	for _, b := range d.pending {
		if b.Op.IsWrite() && d.rng.IntN(2) == 0 {
			d.perform(b)
		}
	}
	d.sim.AfterFunc(lasts, func() {
		d.lost = false
		for _, b := range d.pending {
			d.send(b)
		}
	})
}

func (d *disk) finish(b *blk.Bio) {
	if d.off {
		return
	}
	for i, p := range d.pending {
		if p == b {
			d.pending = append(d.pending[:i], d.pending[i+1:]...)
			break
		}
	}
	b.Complete(d.carryOut(b))
}

func (d *disk) carryOut(b *blk.Bio) blk.Status {
	if d.broken != nil {
		if st := d.broken(b); st != blk.OK {
			return st
		}
	}
	if n := d.allocate(b); n < b.Sectors {
		c := &blk.Bio{}
		c.CloneFrom(b)
		c.Sectors = n
		d.perform(c)
		return blk.NoSpace
	}
	return d.perform(b)
}

func (d *disk) perform(b *blk.Bio) blk.Status {
	c := &blk.Bio{End: func(*blk.Bio) {}}
	c.CloneFrom(b)
	d.mem.Submit(c)
	if d.changed != nil && b.Op.IsWrite() {
		d.changed()
	}
	return c.Status()
}

// cut turns the power off. Each write that was under way has happened or not, and each
// sector that was not flushed survives or not. If only the process was killed, everything
// that has happened is still there, be it in the page cache of this machine or in the server
// of a remote disk; what was not flushed stays as volatile as it was. A write that a
// server carries out only after the restart is not simulated: nothing in a stack can tell it
// from one that has happened, and the next owner of the disk may have written there.
func (d *disk) cut(killed bool) {
	d.off = true
	for _, b := range d.pending {
		if b.Op.IsWrite() && b.Op != blk.Flush && d.rng.IntN(2) == 0 {
			c := &blk.Bio{End: func(*blk.Bio) {}}
			c.CloneFrom(b)
			c.Flags &^= blk.FUA // not acknowledged: no promise
			d.mem.Submit(c)
		}
	}
	d.pending = nil
	if !killed {
		d.mem = d.mem.CrashClone(d.rng.Uint64())
	}
}

// breaks makes the function that decides which bios of d fail. A bio fails before it is
// carried out; a write may also fail after that.
func (w *harness) breaks(d *disk) func(*blk.Bio) blk.Status {
	perMille := []int{0, 5, 50, 300}[w.rng.IntN(4)]
	return func(b *blk.Bio) blk.Status {
		if !w.breaking || w.calm && w.busy || perMille == 0 || d.rng.IntN(1000) >= perMille || d.spared != nil && d.spared(b) {
			return blk.OK
		}
		if b.Op.HasData() && b.Op.IsWrite() && d.rng.IntN(2) == 0 {
			d.perform(b)
		}
		w.note("%v breaks %v", d, b)
		return blk.IOErr
	}
}

// on turns the power on in a new simulator.
func (d *disk) on(s *env.Sim) { d.sim, d.off, d.lost, d.pending = s, false, false, nil }

func (d *disk) Limits() blk.Limits { return d.mem.Limits() }
func (d *disk) Close() error       { return nil }
func (d *disk) String() string     { return d.name }
