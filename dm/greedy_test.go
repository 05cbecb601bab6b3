package dm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"udm/blk"
	"udm/env"
)

// busyDisk serves some bios at once, each for a time. Others wait in order.
type busyDisk struct {
	sim      *env.Sim
	channels int
	takes    time.Duration
	waiting  []*blk.Bio
}

func (d *busyDisk) Limits() blk.Limits { return blk.DefaultLimits(1 << 20) }
func (d *busyDisk) Close() error       { return nil }
func (d *busyDisk) String() string     { return "busy" }

// Open makes the disk an Opener of itself.
func (d *busyDisk) Open(string, bool) (blk.Device, Number, error) { return d, Number{Major: 7}, nil }

func (d *busyDisk) Submit(b *blk.Bio) {
	if d.channels == 0 {
		d.waiting = append(d.waiting, b)
		return
	}
	d.channels--
	d.sim.AfterFunc(d.takes, func() {
		d.channels++
		if len(d.waiting) > 0 {
			next := d.waiting[0]
			d.waiting = d.waiting[1:]
			d.Submit(next)
		}
		b.Complete(blk.OK)
	})
}

// crowd is a greedy client and polite ones, each of a device of its own on one disk.
type crowd struct {
	t     *testing.T
	sim   *env.Sim
	over  bool
	took  []time.Duration // latencies of the polite ones
	after time.Duration   // that count from then on
}

// Each polite client writes 40 times a second, at any moment. The disk can do 8,000 writes a
// second. The greedy one has 256 writes in flight.
const polite, depth = 63, 256

// p99 is that of the polite clients, with or without a greedy one, limited as a group.
func (c *crowd) p99(greedy bool, limit Rates) time.Duration {
	c.t.Helper()
	disk := &busyDisk{sim: c.sim, channels: 16, takes: 2 * time.Millisecond}
	control := NewControl(c.sim, disk, shiftType)
	defer func() { c.must(control.Close()) }()
	group := NewThrottle(c.sim)
	group.Set(limit)
	for i := range polite + 1 {
		d, err := control.Create(fmt.Sprint("d", i), "", -1)
		c.must(err)
		c.must(d.Load(specs("0 1024 shift disk"), Mode{Write: true}))
		c.must(d.Resume(ctx, false))
		d.Throttle(group)
		h, err := d.Open(true)
		c.must(err)
		defer func() { c.must(h.Close()) }()
		if i < polite {
			c.write(h, rand.New(rand.NewPCG(uint64(i), 1)))
			continue
		}
		for range depth {
			if greedy {
				c.greed(h)
			}
		}
	}
	c.sim.Advance(4 * time.Second)
	c.over = true
	group.Close()
	c.sim.Advance(time.Minute)
	if len(c.took) < 3*polite*40 {
		c.t.Errorf("the polite ones have written %d times", len(c.took))
	}
	slices.Sort(c.took)
	return c.took[len(c.took)*99/100]
}

func (c *crowd) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// write writes now and then.
func (c *crowd) write(h blk.Device, r *rand.Rand) {
	c.sim.AfterFunc(time.Duration(r.ExpFloat64()*float64(time.Second/40)), func() {
		if c.over {
			return
		}
		began := c.sim.Now()
		c.submit(h, func() {
			if began > c.after {
				c.took = append(c.took, c.sim.Now()-began)
			}
		})
		c.write(h, r)
	})
}

// greed writes as soon as the write before has ended.
func (c *crowd) greed(h blk.Device) {
	if !c.over {
		c.submit(h, func() { c.greed(h) })
	}
}

func (c *crowd) submit(h blk.Device, done func()) {
	b := &blk.Bio{Op: blk.Write}
	b.SetData(make([]byte, blk.SectorSize))
	b.End = func(b *blk.Bio) {
		if b.Status() != blk.OK {
			c.t.Errorf("a write ended with %v", b.Status())
		}
		done()
	}
	h.Submit(b)
}

// TestPoliteBesideGreedy compares the 99th percentile of the latency of 63 polite devices with
// what it is without a greedy one beside them. In a group whose limit is four fifths of what
// the disk can do, it is at most half as much again; without a limit it is many times that.
func TestPoliteBesideGreedy(t *testing.T) {
	p99 := func(greedy bool, limit Rates) time.Duration {
		c := &crowd{t: t, sim: env.NewStepped(), after: 500 * time.Millisecond} // the group's burst is over then
		return c.p99(greedy, limit)
	}
	limit := Rates{Write: Rate{IOs: Bucket{PerSecond: 6400}}}
	alone, beside, unlimited := p99(false, limit), p99(true, limit), p99(true, Rates{})
	t.Logf("alone %v, beside a greedy one %v, without limits %v", alone, beside, unlimited)
	if beside > alone*3/2 {
		t.Errorf("the polite ones wait %v beside a greedy one, and %v alone", beside, alone)
	}
	if unlimited < alone*4 {
		t.Errorf("without limits the polite ones wait only %v: the greedy one is not greedy", unlimited)
	}
}
