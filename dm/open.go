package dm

import (
	"fmt"
	"strings"
	"syscall"

	"udm/blk"
)

// Open opens the device for I/O and counts it as open until the result is
// closed: it cannot be removed meanwhile. EACCES: writing to a read-only
// device. ENXIO: it has been removed.
func (d *Device) Open(write bool) (blk.Device, error) {
	if write && d.Status().ReadOnly {
		return nil, Errorf(syscall.EACCES, "%s is read-only", d.Name())
	}
	return d.open(write)
}

func (d *Device) open(write bool) (blk.Device, error) {
	c := d.control
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byMinor[d.number.Minor] != d {
		return nil, Errorf(syscall.ENXIO, "%s has been removed", d.number)
	}
	d.opens++
	return &handle{d, write}, nil
}

// closed undoes one Open.
func (d *Device) closed() {
	c := d.control
	c.mu.Lock()
	d.opens--
	last := d.opens == 0 && d.deferredRemove
	c.mu.Unlock()
	if last {
		c.reaper.Queue(c.reap)
	}
}

// openLower opens what a table of user names.
func (c *Control) openLower(name string, write bool, user *Device) (blk.Device, Number, error) {
	d := c.Mapped(name)
	if d == nil {
		if c.opener == nil {
			return nil, Number{}, Errorf(syscall.ENODEV, "%s: no such device", name)
		}
		return c.opener.Open(name, write)
	}
	if c.uses(d, user) {
		return nil, Number{}, Errorf(syscall.EINVAL, "%s would map to itself", name)
	}
	if !d.typed.Load() {
		return nil, Number{}, absent(name)
	}
	// A table may write to what is read-only, as in the kernel; what it is
	// built from refuses.
	h, err := d.open(write)
	return h, d.number, err
}

// absent is what the kernel says of a device that has never had a table: it has
// no disk yet.
func absent(name string) error {
	if strings.HasPrefix(name, "/") {
		return Errorf(syscall.ENODEV, "%s: no such device", name)
	}
	return Errorf(syscall.ENXIO, "%s: no such device", name)
}

// Mapped resolves the names that mapped devices have in tables: /dev/mapper/NAME,
// /dev/dm-MINOR and MAJOR:MINOR. nil: it is not one of those, or not there.
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

// uses reports whether d is user or has it, at any depth, in a table.
func (c *Control) uses(d, user *Device) bool {
	if d == user {
		return true
	}
	for _, t := range []*Table{d.table(), d.inactiveTable()} {
		if t == nil {
			continue
		}
		for _, n := range t.deps() {
			if under, err := c.Number(n); err == nil && c.uses(under, user) {
				return true
			}
		}
	}
	return false
}
