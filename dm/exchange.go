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
	Specs  []Spec // nil: the device keeps its table and only stops meanwhile
	Mode   Mode
}

// Exchange replaces the tables of several devices at once, as seen by their users. It
// uses neither the inactive slots nor the user's suspends. The devices stop one after
// the other, each before those that it uses, and run on in reverse order. They get their
// tables in the reverse order of cs: a device must come before the devices that it uses
// in its new table, and a device that takes over the exceptions of a snapshot after it.
// A device without a table gets its first one.
//
// Tables are constructed while the devices stand still, so a constructor may read what
// the old table of its device has written, but it must not need I/O of another device
// in cs.
//
// EBUSY: a user has suspended one of the devices. EINTR: ctx was cancelled while I/O
// was in flight. After an error every device has its old table.
func Exchange(ctx context.Context, cs []Change) (err error) {
	x := exchange{cs: cs, old: make([]*Table, len(cs)), resumed: make([]bool, len(cs))}
	defer func() { err = errors.Join(err, x.runOn()) }()
	for _, i := range stopOrder(cs) {
		if err := cs[i].Device.stop(ctx); err != nil {
			return err
		}
		x.stopped = append(x.stopped, i)
	}
	return x.swap()
}

// stopOrder are the indexes of cs with users before what they use: what a user has in
// flight ends only while the devices below run.
func stopOrder(cs []Change) (order []int) {
	users := make(map[Number]int)
	deps := make([][]Number, len(cs))
	for i, c := range cs {
		deps[i] = c.Device.Deps(false)
		for _, n := range deps[i] {
			users[n]++
		}
	}
	stops := make([]bool, len(cs))
	for len(order) < len(cs) {
		for i, c := range cs {
			if stops[i] || users[c.Device.Number()] > 0 {
				continue
			}
			stops[i] = true
			order = append(order, i)
			for _, n := range deps[i] {
				users[n]--
			}
		}
	}
	return order
}

// exchange is an Exchange under way.
type exchange struct {
	cs      []Change
	stopped []int    // indexes of the devices that have stopped, in that order
	old     []*Table // the tables that have been replaced
	resumed []bool   // the resume hooks of the live table have run
}

// runOn runs the resume hooks of the devices that have stopped, and lets them run on.
func (x *exchange) runOn() (err error) {
	for _, i := range slices.Backward(x.stopped) {
		c := x.cs[i]
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

// swap gives the stopped devices their new tables, or all of them their old ones.
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

// change makes a new table, replaces the live one by it, and runs its resume hooks.
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

// changed makes the device read-only if its live table is.
func (d *Device) changed() {
	t := d.table()
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	d.readOnly = t != nil && !t.mode.Write
	d.control.changedLocked()
}

// takeBack gives the devices their old tables again after the change of the device at
// index failed has failed. The old targets have lost the state that the new ones have
// taken over, so the old tables are constructed again from their lines, after the new
// ones have been closed; so are those of devices whose turn has not come.
func (x *exchange) takeBack(failed int) (err error) {
	if !slices.Contains(x.resumed, true) {
		return nil
	}
	for i, c := range x.cs[:failed+1] {
		if c.Specs != nil {
			x.old[i] = c.Device.table()
		}
	}
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
