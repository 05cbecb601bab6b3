package dm

import (
	"slices"
	"sync"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/internal/invariants"
)

// lowers are the devices that the tables of a mapped device have open, those
// that are being loaded included.
type lowers struct {
	lowerMu sync.Mutex
	opened  []*lower // guarded by lowerMu
}

// lower is one open of a lower device. The tables of a mapped device share it
// (the kernel's struct table_device). In builds with invariants dev checks what
// the targets send down.
type lower struct {
	dev    blk.Device
	num    Number
	write  bool
	mapped *Device // what dev is an open of; nil: another kind
	users  int     // guarded by lowerMu; tables
}

// adopt makes l, just opened, a lower device, or closes it in favour of one that
// is there already.
func (ls *lowers) adopt(l lower) *lower {
	ls.lowerMu.Lock()
	i := slices.IndexFunc(ls.opened, func(o *lower) bool { return o.num == l.num && o.write == l.write })
	if i < 0 {
		if invariants.Enabled {
			l.dev = checkdev.Between(l.dev)
		}
		l.users = 1
		ls.opened = append(ls.opened, &l)
		ls.lowerMu.Unlock()
		return &l
	}
	there := ls.opened[i]
	there.users++
	ls.lowerMu.Unlock()
	_ = l.dev.Close()
	return there
}

// drop undoes adopt; the last user closes the device. What is wrong with a device
// shows in its I/O: there is nobody to tell here.
func (ls *lowers) drop(l *lower) {
	ls.lowerMu.Lock()
	l.users--
	last := l.users == 0
	if last {
		ls.opened = slices.DeleteFunc(ls.opened, func(o *lower) bool { return o == l })
	}
	ls.lowerMu.Unlock()
	if last {
		_ = l.dev.Close()
	}
}

// mappedLowers are the mapped devices among them.
func (ls *lowers) mappedLowers() (ds []*Device) {
	ls.lowerMu.Lock()
	defer ls.lowerMu.Unlock()
	for _, l := range ls.opened {
		if l.mapped != nil {
			ds = append(ds, l.mapped)
		}
	}
	return ds
}
