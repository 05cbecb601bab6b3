package leaf

import (
	"errors"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// Register reserves a number for the disk with a name until Unregister. The disk has this
// number whenever it is opened by that name, and no other disk gets it. A file does not
// have to exist yet; if it is open under another number when it is first found, it keeps
// that one.
//
// EBUSY: another disk has the number, or the disk has another number. EINVAL: no disk can
// have such a name.
func (o *Opener) Register(name string, n blk.Number) error {
	src, err := resolve(name)
	missing := errors.Is(err, syscall.ENODEV) && src.major != 0
	if err != nil && !missing {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for other, path := range o.registered {
		switch {
		case other == n && path == name:
			return nil
		case other == n:
			return dm.Errorf(syscall.EBUSY, "%s is the number of %s", n, path)
		case path == name:
			return dm.Errorf(syscall.EBUSY, "%s has the number %s; give that up first", name, other)
		}
	}
	if d := o.byNumber[n]; d != nil && (missing || d.source.id != src.id) {
		return dm.Errorf(syscall.EBUSY, "%s is the number of %s, which is open", n, d.source.name)
	}
	if d := o.disks[src.id]; d != nil && !missing && d.number != n {
		return dm.Errorf(syscall.EBUSY, "%s is open as %s; close it first", name, d.number)
	}
	o.registered[n] = name
	return nil
}

// Unregister undoes Register. A disk that is open keeps the number until it is closed.
// ENXIO: the number is not registered.
func (o *Opener) Unregister(n blk.Number) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.registered[n]; !ok {
		return dm.Errorf(syscall.ENXIO, "no disk is registered as %s", n)
	}
	delete(o.registered, n)
	o.freedLocked(n)
	return nil
}

// registeredName returns the name of the disk for which a number is registered.
func (o *Opener) registeredName(n blk.Number) (string, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	name, ok := o.registered[n]
	return name, ok
}

// ownNumberLocked returns the number that is registered for a name, unless it is in use.
func (o *Opener) ownNumberLocked(name string) (blk.Number, bool) {
	for n, path := range o.registered {
		if path == name {
			return n, o.byNumber[n] == nil
		}
	}
	return blk.Number{}, false
}

// takenLocked reports whether a number is in use, registered, or one of a mapped device.
func (o *Opener) takenLocked(n blk.Number) bool {
	_, registered := o.registered[n]
	return n.Major == dm.Major || registered || o.byNumber[n] != nil
}
