package attach

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"

	"udm/ctl/server/exports"
	"udm/dm"
)

// Resumed lets the block device of a device see its size, or brings it back.
func (k *Kernel) Resumed(d *dm.Device) {
	k.lock()
	defer k.op.Unlock()
	minor := d.Number().Minor
	a, known := k.devices[minor]
	switch {
	case !known:
		return
	case !a.back:
		k.bringBack()
		return
	}
	err := k.refresh(d, a)
	if err != nil && !errors.Is(err, errUnused) {
		k.log.Error("the new size of a device cannot be set for its block device", "path", a.path, "reason", err)
	}
}

// Retry brings attachments back whose devices are there by now.
func (k *Kernel) Retry() {
	k.lock()
	defer k.op.Unlock()
	k.bringBack()
}

// bringBack attaches again what was attached before a restart: at the same place
// where that is free. What still uses the old block device has lost it when the
// daemon ended, and keeps it, useless, until it lets go.
func (k *Kernel) bringBack() {
	before := maps.Clone(k.devices)
	for _, minor := range slices.Sorted(maps.Keys(k.devices)) {
		if a := k.devices[minor]; !a.back {
			k.bringBackOne(minor, a)
		}
	}
	if !maps.Equal(before, k.devices) {
		if err := k.save(); err != nil {
			k.log.Error("the list of attached devices cannot be saved", "reason", err)
		}
	}
}

func (k *Kernel) bringBackOne(minor uint32, a attachment) {
	log := k.log
	d, err := k.control.Number(dm.Number{Major: dm.Major, Minor: minor})
	if err != nil {
		delete(k.devices, minor)
		return
	}
	if st := d.Status(); !st.Live || st.Suspended {
		return // until it works
	}
	if err := k.detachOne(minor, true); err != nil {
		log.Warn("a block device from before the restart is still in use; its I/O fails", "path", a.path, "reason", err)
	}
	now, err := k.attached(d, driverOf(a.path))
	switch {
	case err != nil:
		log.Error("a device cannot be attached again", "device", d.Name(), "reason", err)
		delete(k.devices, minor)
	case now.path != a.path:
		log.Warn("a device is now attached as another block device", "device", d.Name(), "path", now.path, "before", a.path)
	}
}

// detachAll ends all attachments; they stay saved. The error tells of those that
// were in use.
func (k *Kernel) detachAll() error {
	var errs []error
	for minor, a := range k.devices {
		if !a.back {
			continue
		}
		if err := k.detachOne(minor, true); err != nil {
			errs = append(errs, fmt.Errorf("%s, which is %s, cannot be detached; its I/O fails from now on: %w", a.path, exports.Numbered(minor), err))
		}
	}
	k.cut.Store(true)
	_ = k.nbd.Close() // has no error
	for _, l := range k.links {
		l.wait()
	}
	if err := k.own.end(true); err != nil && !errors.Is(err, syscall.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
