//go:build race || invariants

package dm

import (
	"strings"
	"sync/atomic"
	"testing"

	"udm/blk"
	"udm/env"
)

// atPoints runs f whenever a device reaches a point, until the test ends.
func atPoints(t *testing.T, f func(*Device, point)) {
	atPoint.Store(&f)
	t.Cleanup(func() { atPoint.Store(nil) })
}

// pauseAt runs f when a device first reaches a point.
func pauseAt(t *testing.T, at point, f func(d *Device)) {
	var once atomic.Bool
	atPoints(t, func(d *Device, p point) {
		if p == at && !once.Swap(true) {
			f(d)
		}
	})
}

// seen is a null device that counts bios, or does what a test sets.
type seen struct {
	null
	n atomic.Int32
}

func (s *seen) Submit(b *blk.Bio) { s.n.Add(1); b.Complete(blk.OK) }

type only struct{ d blk.Device }

func (o only) Open(string, bool) (blk.Device, Number, error) { return o.d, Number{Major: 1}, nil }

func threaded(t *testing.T, low blk.Device, ty *Type, params string) *Device {
	c := NewControl(env.Real(), only{low}, ty)
	t.Cleanup(func() { noError(t, c.Close()) })
	d, err := c.Create("d", "", -1)
	noError(t, err)
	noError(t, d.Load([]Spec{{0, 1 << 20, ty.Name, params}}, Mode{Write: true}))
	noError(t, d.Resume(ctx, false))
	return d
}

func write8(end func(*blk.Bio)) *blk.Bio {
	b := &blk.Bio{Op: blk.Write, End: end}
	b.SetData(make([]byte, 8*blk.SectorSize))
	return b
}

// A suspend begins and ends between the moment a submitter reads the table and the
// moment it counts its bio: it notices when it reads the table again.
func TestSuspendBetweenLookAndCount(t *testing.T) {
	low := &seen{null: null{1 << 20}}
	d := threaded(t, low, shiftType, "null")
	there, goOn, submitted := make(chan bool), make(chan bool), make(chan bool)
	pauseAt(t, beforeCount, func(*Device) {
		there <- true
		<-goOn
	})
	ended := make(chan bool, 1)
	b := write8(func(*blk.Bio) { ended <- true })
	go func() { d.Submit(b); submitted <- true }()
	<-there
	noError(t, d.Suspend(ctx, false))
	goOn <- true
	<-submitted
	if n := low.n.Load(); n != 0 {
		t.Errorf("%d bios went through a suspended device", n)
	}
	noError(t, d.Resume(ctx, false))
	<-ended
}

// A bio waits that comes after a suspend has taken the table away and before it has read
// the number in flight.
func TestSubmitWhileASuspendBegins(t *testing.T) {
	low := &seen{null: null{1 << 20}}
	d := threaded(t, low, shiftType, "null")
	ended := make(chan bool, 1)
	b := write8(func(*blk.Bio) { ended <- true })
	pauseAt(t, keptOut, func(d *Device) {
		done := make(chan bool)
		go func() { d.Submit(b); close(done) }()
		<-done
	})
	noError(t, d.Suspend(ctx, false))
	if n := low.n.Load(); n != 0 {
		t.Errorf("%d bios went through while the device was being suspended", n)
	}
	noError(t, d.Resume(ctx, false))
	<-ended
}

// A bio that is pushed back is in flight until it is requeued, so a suspend does not end
// before the bio is where resume finds it.
func TestPushedBackIsCountedUntilDecided(t *testing.T) {
	for _, params := range []string{"null 0", "null 4"} { // one piece; two, through the work
		t.Run(params, func(t *testing.T) { pushBack(t, params) })
	}
}

func pushBack(t *testing.T, params string) {
	d := threaded(t, &seen{null: null{1 << 20}}, scriptType, params)
	suspended, kept := make(chan error, 1), make(chan bool, 1)
	atPoints(t, func(d *Device, p point) {
		switch {
		case p == keptOut:
			kept <- true
		case p == beforeRequeue && d.idleNow():
			t.Error("nothing is in flight although a bio is being pushed back")
		}
	})
	var asked atomic.Bool
	script(d, 0).plan = func(*Clone) Outcome {
		if !asked.Swap(true) {
			go func() { suspended <- d.Suspend(ctx, true) }()
			<-kept
		}
		if d.noflushing.Load() {
			return Requeue
		}
		return Remapped
	}
	ended := make(chan blk.Status, 1)
	d.Submit(write8(func(b *blk.Bio) { ended <- b.Status() }))
	noError(t, <-suspended)
	atPoint.Store(nil)
	noError(t, d.Resume(ctx, true))
	if st := <-ended; st != blk.OK {
		t.Errorf("pushed back during a suspend without flush, ended with %v", st)
	}
}

// A target that breaks the contract of bios is detected between levels.
func TestTargetThatBreaksTheContract(t *testing.T) {
	var spoil func(*Clone)
	ty := &Type{Name: "spoil", New: func(t *Target, args []string) (Mapper, error) {
		d, err := t.Open(args[0], true)
		return &scripted{dev: d, plan: func(c *Clone) Outcome { spoil(c); return Remapped }}, err
	}}
	for name, f := range map[string]func(*Clone){
		"beyond the end": func(c *Clone) { c.Sector = 1 << 20 },
		"too long":       func(c *Clone) { c.Sectors++ },
		"unknown flag":   func(c *Clone) { c.Flags = blk.NoUnmap },
	} {
		d := threaded(t, &seen{null: null{1 << 20}}, ty, "null")
		spoil = f
		func() {
			defer func() {
				if r, _ := recover().(string); !strings.Contains(r, "was sent to") {
					t.Errorf("%s: %q", name, r)
				}
			}()
			d.Submit(write8(func(*blk.Bio) {}))
		}()
		for i := range d.shards { // what panicked is in flight for ever
			d.shards[i].n.Store(0)
		}
	}
}
