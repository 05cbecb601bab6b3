package dm

import (
	"slices"
	"sync"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/internal/invariants"
)

// lowers are the devices that the tables of a mapped device have open, including
// tables that are being loaded.
type lowers struct {
	lowerMu sync.Mutex
	opened  []*lower // guarded by lowerMu
}

// lower is one open of a lower device, which the tables of a mapped device share (the
// kernel's struct table_device). In builds with invariants, dev checks the bios that
// targets send to it.
type lower struct {
	dev    blk.Device
	num    Number
	name   string // that it was opened by first
	write  bool
	user   *Device // whose tables use it
	mapped *Device // the mapped device that dev is an open of; nil: another kind
	users  int     // guarded by lowerMu; number of tables that use it
}

// adopt adds l, which was just opened, to the lower devices. If the same device is open
// already, adopt closes l and returns that one.
func (ls *lowers) adopt(l lower) *lower {
	ls.lowerMu.Lock()
	i := slices.IndexFunc(ls.opened, func(o *lower) bool { return o.num == l.num && o.write == l.write })
	if i < 0 {
		if invariants.Enabled {
			l.dev = checkdev.Between(l.dev)
		}
		l.users = 1
		ls.opened = append(ls.opened, &l)
		l.user.control.users.add(&l)
		ls.lowerMu.Unlock()
		return &l
	}
	there := ls.opened[i]
	there.users++
	ls.lowerMu.Unlock()
	_ = l.dev.Close()
	return there
}

// drop undoes adopt; after the last user the device is closed. An error of that close is
// ignored, because nobody could act on it: errors that matter show in the I/O before.
func (ls *lowers) drop(l *lower) {
	ls.lowerMu.Lock()
	l.users--
	last := l.users == 0
	if last {
		ls.opened = slices.DeleteFunc(ls.opened, func(o *lower) bool { return o == l })
		l.user.control.users.remove(l)
	}
	ls.lowerMu.Unlock()
	if last {
		_ = l.dev.Close()
	}
}

// mappedLowers returns the mapped devices among the lower devices.
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
