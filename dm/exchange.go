package dm

import (
	"context"
	"errors"
	"slices"
	"syscall"
)

// Change is the next table of a device.
type Change struct {
	Device *Device
	Specs  []Spec // nil: it keeps its table, and only stops meanwhile
	Mode   Mode
}

// Exchange gives several devices new tables at one moment, as seen by those who
// use them, without the inactive slot and without any suspend of a user's: the
// devices stop in order, the last one gets its table first, and they run on in
// reverse order. A device that stands on another comes before it, also in the
// new tables, and what takes over exceptions of a snapshot comes behind it. A
// device that has no table yet gets its first one.
//
// Tables are made while nothing flows, so that one may read what the device's
// old table wrote; the constructor of none may need I/O of another device in cs.
//
// EBUSY: a user has suspended one of the devices. EINTR: ctx was cancelled while
// I/O was in flight. After an error every device has the table that it had.
func Exchange(ctx context.Context, cs []Change) (err error) {
	x := exchange{cs: cs, old: make([]*Table, len(cs)), resumed: make([]bool, len(cs))}
	defer func() { err = errors.Join(err, x.runOn()) }()
	for _, c := range cs {
		if err := c.Device.stop(ctx); err != nil {
			return err
		}
		x.stopped++
	}
	return x.swap()
}

// exchange is an Exchange under way.
type exchange struct {
	cs      []Change
	stopped int      // the first so many have stopped
	old     []*Table // what has been replaced
	resumed []bool   // the resume hooks of the live table have run
}

// runOn lets the devices that have stopped run on, after the resume hooks.
func (x *exchange) runOn() (err error) {
	for i, c := range slices.Backward(x.cs[:x.stopped]) {
		if !x.resumed[i] {
			err = errors.Join(err, c.Device.resumeTable())
		}
		c.Device.InternalResume()
	}
	return err
}

// resumeTable runs the resume hooks of the live table.
func (d *Device) resumeTable() error {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	t := d.table()
	if t == nil {
		return nil
	}
	if err := t.preresume(); err != nil {
		return err
	}
	t.forEach(func(h *hooks) { h.Resume() })
	return nil
}

// stop is an internal suspend of a device that its user has not suspended.
func (d *Device) stop(ctx context.Context) error {
	if err := d.present(); err != nil {
		return err
	}
	if err := d.internalSuspend(ctx); err != nil {
		return err
	}
	if d.Suspended() {
		d.InternalResume()
		return Errorf(syscall.EBUSY, "%s is suspended; resume it first", d.Name())
	}
	return nil
}

// swap gives devices that have stopped their new tables, or takes that back.
func (x *exchange) swap() error {
	for i, c := range slices.Backward(x.cs) {
		if c.Specs == nil {
			continue
		}
		var err error
		if x.old[i], err = c.Device.change(c.Specs, c.Mode); err != nil {
			return errors.Join(err, x.takeBack(i))
		}
		x.resumed[i] = true
	}
	for i, c := range x.cs {
		if c.Specs != nil {
			c.Device.changed()
		}
		if x.old[i] != nil {
			x.old[i].close()
		}
	}
	return nil
}

// change makes a new table, puts it in the place of the live one, and runs its
// resume hooks.
func (d *Device) change(specs []Spec, mode Mode) (old *Table, err error) {
	d.loading.Lock()
	defer d.loading.Unlock()
	t, err := newTable(d, specs, mode)
	if err != nil {
		return nil, err
	}
	if err := d.admit(t); err != nil {
		t.close()
		return nil, err
	}
	if old, err = d.changeTo(t); err != nil {
		t.close()
	}
	return old, err
}

func (d *Device) changeTo(t *Table) (old *Table, err error) {
	d.ctl.Lock()
	defer d.ctl.Unlock()
	if d.stateNow().dead {
		return nil, errRemoved
	}
	if old, err = d.install(t); err != nil {
		return nil, err
	}
	if err := t.preresume(); err != nil {
		d.reinstall(old)
		return nil, err
	}
	t.forEach(func(h *hooks) { h.Resume() })
	return old, nil
}

// changed notes that the device is writable or not as its live table is.
func (d *Device) changed() {
	t := d.table()
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	d.readOnly = t != nil && !t.mode.Write
	d.control.changedLocked()
}

// takeBack gives devices their old tables again when that of number failed could
// not be changed. What the new tables have taken over is lost to the objects of
// the old ones, which are therefore made anew from their lines once all others
// are gone.
func (x *exchange) takeBack(failed int) (err error) {
	if !slices.Contains(x.resumed, true) {
		return nil
	}
	x.old[failed] = x.cs[failed].Device.table()
	for i, c := range x.cs {
		if x.resumed[i] {
			c.Device.reinstall(x.old[i]).close()
			x.resumed[i] = false
		}
	}
	for i, c := range slices.Backward(x.cs) {
		t := x.old[i]
		if t == nil {
			continue
		}
		c.Device.reinstall(nil)
		t.close()
		_, cerr := c.Device.change(t.specs, t.mode)
		x.resumed[i] = cerr == nil
		err = errors.Join(err, cerr)
	}
	return err
}
