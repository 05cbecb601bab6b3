package dm

import (
	"fmt"
	"slices"
	"strings"
	"syscall"

	"udm/blk"
)

// Open opens the device for I/O. It counts as open, and cannot be removed, until the
// result is closed. EACCES: the device is read-only and write is set. ENXIO: the device
// has been removed.
func (d *Device) Open(write bool) (blk.Device, error) { return d.OpenFor(Program, write) }

// Holder is a kind of user that has a device open.
type Holder string

// The holders of this package; servers have kinds of their own.
const (
	Tables  Holder = "tables"
	Program Holder = "program"
)

// OpenFor is Open for a given kind of user.
func (d *Device) OpenFor(who Holder, write bool) (blk.Device, error) {
	if write && d.Status().ReadOnly {
		return nil, Errorf(syscall.EACCES, "%s is read-only", d.Name())
	}
	return d.open(who, write)
}

func (d *Device) open(who Holder, write bool) (blk.Device, error) {
	c := d.control
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byMinor[d.number.Minor] != d {
		return nil, Errorf(syscall.ENXIO, "%s has been removed", d.number)
	}
	d.opens++
	if d.holders == nil {
		d.holders = make(map[Holder]int)
	}
	d.holders[who]++
	return &handle{d, who, write}, nil
}

// closed undoes one Open.
func (d *Device) closed(who Holder) {
	c := d.control
	c.mu.Lock()
	d.opens--
	if d.holders[who]--; d.holders[who] == 0 {
		delete(d.holders, who)
	}
	last := d.opens == 0 && d.deferredRemove
	c.mu.Unlock()
	if last {
		c.reaper.Queue(c.reap)
	}
}

// openLower opens the device that a table of d names.
func (d *Device) openLower(name string, write bool) (*lower, error) {
	c := d.control
	if under := c.Mapped(name); under != nil {
		return d.openMapped(under, name, write)
	}
	if c.opener == nil {
		return nil, Errorf(syscall.ENODEV, "%s: no such device", name)
	}
	dev, num, err := c.opener.Open(name, write)
	if err != nil {
		return nil, err
	}
	return d.adopt(lower{dev: dev, num: num, name: name, write: write, user: d}), nil
}

// openMapped opens a mapped device for a table of d. It checks that the device does not
// use d and makes d use it in one step: of two loads that together make a cycle, one
// fails.
func (d *Device) openMapped(under *Device, name string, write bool) (*lower, error) {
	d.control.nesting.Lock()
	defer d.control.nesting.Unlock()
	if under.uses(d, map[*Device]bool{}) {
		return nil, Errorf(syscall.EINVAL, "%s would map to itself", name)
	}
	if !under.typed.Load() {
		return nil, absent(name)
	}
	// As in the kernel, a table may open a read-only device for writing; the devices
	// below that one refuse the writes.
	h, err := under.open(Tables, write)
	if err != nil {
		return nil, err
	}
	return d.adopt(lower{dev: h, num: under.number, name: name, write: write, user: d, mapped: under}), nil
}

// absent is the kernel's error for a device that has never had a table: it does not have
// a disk yet.
func absent(name string) error {
	if strings.HasPrefix(name, "/") {
		return Errorf(syscall.ENODEV, "%s: no such device", name)
	}
	return Errorf(syscall.ENXIO, "%s: no such device", name)
}

// SizeOf returns the size in sectors of what a table would open by a name.
func (c *Control) SizeOf(name string) (sectors uint64, err error) {
	if d := c.Mapped(name); d != nil {
		return d.Limits().Size, nil
	}
	if c.opener == nil {
		return 0, Errorf(syscall.ENODEV, "%s: no such device", name)
	}
	dev, _, err := c.opener.Open(name, false)
	if err != nil {
		return 0, err
	}
	return dev.Limits().Size, dev.Close()
}

// NumberOf returns the number of the device that Open would open by a name. It does not
// stay open.
func (t *Target) NumberOf(name string) (Number, error) {
	c := t.table.dev.control
	if d := c.Mapped(name); d != nil {
		return d.number, nil
	}
	if c.opener == nil {
		return Number{}, Errorf(syscall.ENODEV, "%s: no such device", name)
	}
	dev, number, err := c.opener.Open(name, false)
	if err != nil {
		return Number{}, err
	}
	return number, dev.Close()
}

// Mapped returns the mapped device that a table names: /dev/mapper/NAME, /dev/dm-MINOR
// or MAJOR:MINOR. It returns nil if the name is none of these or there is no such device.
func (c *Control) Mapped(name string) *Device {
	if name, ok := strings.CutPrefix(name, "/dev/mapper/"); ok {
		d, _ := c.Name(name)
		return d
	}
	if minor, ok := strings.CutPrefix(name, "/dev/dm-"); ok {
		name = fmt.Sprintf("%d:%s", Major, minor)
	}
	n, ok := blk.ParseNumber(name)
	if !ok {
		return nil
	}
	d, _ := c.Number(n)
	return d
}

// uses reports whether d is user or has it in a table, directly or through other
// devices. seen is the set of devices already visited.
func (d *Device) uses(user *Device, seen map[*Device]bool) bool {
	if d == user {
		return true
	}
	seen[d] = true
	return slices.ContainsFunc(d.mappedLowers(), func(under *Device) bool {
		return !seen[under] && under.uses(user, seen)
	})
}
