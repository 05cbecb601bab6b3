package dm

import (
	"slices"

	"udm/blk"
)

// lower is one open of a lower device. The live and the inactive table of a
// mapped device share it (the kernel's struct table_device).
type lower struct {
	dev   blk.Device
	num   Number
	write bool
	users int // guarded by Device.lowerMu; tables
}

// adopt makes dev, just opened, a lower of d, or closes it in favour of one that
// is there already.
func (d *Device) adopt(dev blk.Device, num Number, write bool) *lower {
	d.lowerMu.Lock()
	i := slices.IndexFunc(d.lowers, func(l *lower) bool { return l.num == num && l.write == write })
	if i < 0 {
		l := &lower{dev, num, write, 1}
		d.lowers = append(d.lowers, l)
		d.lowerMu.Unlock()
		return l
	}
	l := d.lowers[i]
	l.users++
	d.lowerMu.Unlock()
	_ = dev.Close()
	return l
}

// drop undoes adopt; the last user closes the device. What is wrong with a device
// shows in its I/O: there is nobody to tell here.
func (d *Device) drop(l *lower) {
	d.lowerMu.Lock()
	l.users--
	last := l.users == 0
	if last {
		d.lowers = slices.DeleteFunc(d.lowers, func(o *lower) bool { return o == l })
	}
	d.lowerMu.Unlock()
	if last {
		_ = l.dev.Close()
	}
}
