package dm

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
)

// The control operations on one device. Each is a command of the kernel's dm-ioctl.c,
// with the same errors. ENXIO means that the device has been removed.

// Name returns the device's name.
func (d *Device) Name() string {
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	return d.name
}

// UUID returns the device's uuid, or "" if it has none.
func (d *Device) UUID() string {
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	return d.uuid
}

func (d *Device) String() string { return "/dev/mapper/" + d.Name() }

// Close removes the device; it makes Device a blk.Device. To use a device that has
// other users, use Open and close what it returns.
func (d *Device) Close() error {
	_, err := d.Remove(false)
	return err
}

// Load constructs a table and puts it into the inactive slot, where it replaces the
// table that is there. The live table does not change. Load opens devices and may read
// metadata, so it can take a while. The errors are those of the constructors.
func (d *Device) Load(specs []Spec, mode Mode) error {
	d.loading.Lock()
	defer d.loading.Unlock()
	t, err := newTable(d, specs, mode)
	if err != nil {
		return err
	}
	if err := d.admit(t); err != nil {
		t.close()
		return err
	}
	return d.setInactive(t)
}

// admit checks a new table of the device: the first one must have valid limits, and an
// immutable target type cannot be replaced.
func (d *Device) admit(t *Table) error {
	if !d.typed.Load() {
		if _, err := t.stack(); err != nil {
			return err
		}
		d.typed.Store(true)
	}
	live := d.table()
	if live == nil {
		return nil
	}
	im := live.immutable()
	if im == nil || im == t.immutable() || t.wildcard() {
		return nil
	}
	return Errorf(syscall.EINVAL, "can't replace immutable target type %s", im.Name)
}

func (t *Table) wildcard() bool {
	for _, ti := range t.targets {
		if ti.Type.Features&Wildcard != 0 {
			return true
		}
	}
	return false
}

// setInactive puts t into the inactive slot and closes the table that was there.
func (d *Device) setInactive(t *Table) error {
	c := d.control
	c.mu.Lock()
	if c.byMinor[d.number.Minor] != d {
		c.mu.Unlock()
		t.close()
		return errRemoved
	}
	old := d.inactive
	d.inactive = t
	c.mu.Unlock()
	d.tell(Loaded)
	if old != nil {
		old.close()
	}
	return nil
}

// takeInactive empties the inactive slot.
func (d *Device) takeInactive() *Table {
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	t := d.inactive
	d.inactive = nil
	return t
}

func (d *Device) inactiveTable() *Table {
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	return d.inactive
}

// Clear closes the inactive table, if there is one.
func (d *Device) Clear() {
	if t := d.takeInactive(); t != nil {
		t.close()
	}
}

// Suspend stops I/O: it waits for the I/O in flight, and later I/O waits for Resume.
// With noflush, targets may push bios back, which then wait as well. Suspending a
// suspended device does nothing. EINTR: ctx was cancelled while I/O was in flight; the
// device runs on.
func (d *Device) Suspend(ctx context.Context, noflush bool) error {
	if err := d.present(); err != nil {
		return err
	}
	if d.Suspended() {
		return nil
	}
	err := d.suspend(ctx, noflush)
	if err == nil {
		d.tell(Suspended)
	}
	return err
}

// Resume makes the inactive table, if there is one, the live one, and lets I/O flow. It
// suspends a running device for that, with noflush as in Suspend. If the new table does
// not fit, it is closed and the device stays suspended with the old one. Resuming a
// running device without an inactive table does nothing.
func (d *Device) Resume(ctx context.Context, noflush bool) error {
	if err := d.present(); err != nil {
		return err
	}
	var old *Table
	if t := d.takeInactive(); t != nil {
		var err error
		if old, err = d.replace(ctx, t, noflush); err != nil {
			t.close()
			return err
		}
	}
	var err error
	if d.Suspended() {
		if err = d.resume(ctx); err == nil {
			d.tell(Resumed)
		}
	}
	if old != nil {
		old.close()
	}
	return err
}

func (d *Device) replace(ctx context.Context, t *Table, noflush bool) (*Table, error) {
	if !d.Suspended() {
		// A suspend that fails shows in the swap.
		_ = d.suspend(ctx, noflush)
	}
	old, err := d.swap(t)
	if err != nil {
		return nil, err
	}
	d.control.mu.Lock()
	d.readOnly = !t.mode.Write
	d.control.changedLocked()
	d.control.mu.Unlock()
	return old, nil
}

func (d *Device) present() error {
	c := d.control
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byMinor[d.number.Minor] != d {
		return errRemoved
	}
	return nil
}

// Remove removes the device. EBUSY: it is open. With later, an open device is marked
// instead, which marked reports, and removed when its last user closes it.
func (d *Device) Remove(later bool) (marked bool, err error) {
	c := d.control
	c.mu.Lock()
	switch {
	case c.byMinor[d.number.Minor] != d:
		c.mu.Unlock()
		return false, errRemoved
	case d.opens > 0 && later:
		d.deferredRemove = true
		c.mu.Unlock()
		return true, nil
	case d.opens > 0:
		c.mu.Unlock()
		return false, Errorf(syscall.EBUSY, "device is in use")
	}
	c.dropLocked(d)
	c.mu.Unlock()
	d.removed()
	return false, nil
}

// removed ends a device that has been dropped.
func (d *Device) removed() {
	d.Clear()
	d.event(Removed)
	d.destroy()
}

// RemoveTogether removes devices, all or none. EBUSY: one is open, be it by another of
// them.
func (c *Control) RemoveTogether(ds []*Device) error {
	if err := c.dropTogether(ds); err != nil {
		return err
	}
	for _, d := range ds {
		d.removed()
	}
	return nil
}

func (c *Control) dropTogether(ds []*Device) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range ds {
		switch {
		case c.byMinor[d.number.Minor] != d:
			return errRemoved
		case d.opens > 0:
			return Errorf(syscall.EBUSY, "device %s is in use", d.name)
		}
	}
	for _, d := range ds {
		c.dropLocked(d)
	}
	return nil
}

// RemoveAmong removes devices, each before those that it uses. EBUSY: some are still open.
func (c *Control) RemoveAmong(ds []*Device) error {
	for left := len(ds); left > 0; {
		ds = slices.DeleteFunc(slices.Clone(ds), func(d *Device) bool {
			_, err := d.Remove(false)
			return err == nil || errors.Is(err, errRemoved)
		})
		if len(ds) == left {
			return Errorf(syscall.EBUSY, "%d devices are still open, %s among them", left, ds[0].Name())
		}
		left = len(ds)
	}
	return nil
}

// RemoveAll removes all devices that are not open, again and again until none is left
// that can be removed. With later it marks the others.
func (c *Control) RemoveAll(later bool) {
	for progress := true; progress; {
		progress = false
		for _, d := range c.List() {
			if marked, err := d.Remove(later); err == nil && !marked {
				progress = true
			}
		}
	}
}

// removeMarked removes marked devices that are not open, until none is left.
func (c *Control) removeMarked() {
	for progress := true; progress; {
		progress = false
		for _, d := range c.List() {
			if d.Status().DeferredRemove {
				if marked, err := d.Remove(true); err == nil && !marked {
					progress = true
				}
			}
		}
	}
}

// Rename changes the device's name. EBUSY: the name is taken. EINVAL: see Create.
func (d *Device) Rename(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	c := d.control
	c.mu.Lock()
	switch {
	case c.byMinor[d.number.Minor] != d:
		c.mu.Unlock()
		return errRemoved
	case c.byName[name] != nil:
		c.mu.Unlock()
		return Errorf(syscall.EBUSY, "device %s exists", name)
	}
	c.dropLocked(d)
	d.name = name
	c.addLocked(d)
	c.mu.Unlock()
	d.renamed()
	return nil
}

// SetUUID gives a device without a uuid one. EINVAL: the device has one, or uuid is empty
// or has more than 128 bytes. EBUSY: uuid is taken.
func (d *Device) SetUUID(uuid string) error {
	if uuid == "" || len(uuid) > maxUUIDLen {
		return Errorf(syscall.EINVAL, "uuid is empty or longer than %d bytes", maxUUIDLen)
	}
	c := d.control
	c.mu.Lock()
	switch {
	case c.byMinor[d.number.Minor] != d:
		c.mu.Unlock()
		return errRemoved
	case c.byUUID[uuid] != nil:
		c.mu.Unlock()
		return Errorf(syscall.EBUSY, "uuid %s is in use", uuid)
	case d.uuid != "":
		c.mu.Unlock()
		return Errorf(syscall.EINVAL, "uuid is already set")
	}
	d.uuid = uuid
	c.byUUID[uuid] = d
	c.changedLocked()
	c.mu.Unlock()
	d.renamed()
	return nil
}

// renamed reports a rename. Only a device with a live table raises an event for it, as in
// the kernel.
func (d *Device) renamed() {
	if d.table() != nil {
		d.event(Renamed)
	} else {
		d.tell(Renamed)
	}
}

// event raises an event: it increments the device's event number and wakes waiters.
func (d *Device) event(kind EventKind) {
	d.mu.Lock()
	d.eventNr++
	d.mu.Unlock()
	d.events.Wake()
	d.control.mu.Lock()
	d.control.changedLocked()
	d.control.mu.Unlock()
	d.control.events.Wake()
	d.tell(kind)
}

// CountEventsFrom sets the event number, when a device goes on with that of another
// process. Waiters are not woken.
func (d *Device) CountEventsFrom(n uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.eventNr = n
}

// Message sends words to the target that maps a sector, or to the core if the first word
// begins with @. EINVAL: there is no such target, or it does not take the message.
func (d *Device) Message(sector uint64, text string) (string, error) {
	args := SplitWords(text)
	if len(args) == 0 {
		return "", Errorf(syscall.EINVAL, "empty message")
	}
	if strings.HasPrefix(args[0], "@") {
		return d.coreMessage(args)
	}
	t := d.useSlot(false)
	if t == nil {
		return "", nil // the kernel reports success as well
	}
	defer t.release()
	ti := t.find(sector)
	if ti == nil {
		return "", Errorf(syscall.EINVAL, "target message sector outside device")
	}
	return ti.core.hooks.Message(args)
}

func (d *Device) coreMessage(args []string) (string, error) {
	word := strings.ToLower(args[0])
	switch {
	case word == "@cancel_deferred_remove" && len(args) == 1:
		return "", d.cancelRemove()
	case strings.HasPrefix(word, "@stats_"):
		return d.statsMessage(args)
	}
	return "", Errorf(syscall.EINVAL, "Unsupported message sent to DM core: %s", args[0])
}

func (d *Device) cancelRemove() error {
	if err := d.present(); err != nil {
		return Errorf(syscall.EBUSY, "device is being removed")
	}
	d.control.mu.Lock()
	defer d.control.mu.Unlock()
	d.deferredRemove = false
	return nil
}
