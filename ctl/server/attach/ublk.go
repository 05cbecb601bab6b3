package attach

import (
	"udm/ctl"
	"udm/dm"
)

// blockServer is a ublk.Server, where there is ublk.
type blockServer interface {
	Leave()
	Ended() <-chan struct{}
}

// serves reports whether this daemon answers the requests of a block device by ublk.
func (k *Kernel) serves(minor uint32) bool {
	s := k.ublk[minor]
	if s == nil {
		return false
	}
	select {
	case <-s.Ended():
		return false
	default:
		return true
	}
}

// abandoned reports whether the server of a block device has ended by itself while its users wait: the
// driver has aborted its commands.
func (k *Kernel) abandoned(minor uint32) bool {
	return k.ublk[minor] != nil && !k.serves(minor) && k.waiting(minor)
}

// lasting reports whether a block device of ublk or nbd can wait for the next daemon, and has
// to because its device is suspended.
func (k *Kernel) lasting(minor uint32, a attachment) (lasting, suspended bool) {
	d, err := k.control.Number(dm.Number{Major: dm.Major, Minor: minor})
	lasting = err == nil && driverOf(a.path) != ctl.DriverLoop && !d.Limits().ProcessMemory
	return lasting, lasting && d.Status().Suspended
}
