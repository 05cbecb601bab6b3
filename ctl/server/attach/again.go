package server

import (
	"errors"
	"maps"
	"slices"
	"syscall"

	"udm/dm"
)

// resumed lets the block device of a device see its size, or brings it back.
func (f *files) resumed(d *dm.Device) {
	f.op.Lock()
	defer f.op.Unlock()
	minor := d.Number().Minor
	a, known := f.devices[minor]
	switch {
	case !known:
		return
	case !a.back:
		f.bringBack()
		return
	}
	err := f.refresh(d, a)
	if err != nil && !errors.Is(err, errUnused) {
		f.server.log.Error("a block device does not see a new size", "path", a.path, "reason", err)
	}
}

// retry brings attachments back whose devices are there by now.
func (f *files) retry() {
	f.op.Lock()
	defer f.op.Unlock()
	f.bringBack()
}

// bringBack attaches again what was attached before a restart: at the same place
// where that is free. What still uses the old block device has lost it when the
// daemon ended, and keeps it, useless, until it lets go.
func (f *files) bringBack() {
	before := maps.Clone(f.devices)
	for _, minor := range slices.Sorted(maps.Keys(f.devices)) {
		if a := f.devices[minor]; !a.back {
			f.bringBackOne(minor, a)
		}
	}
	if !maps.Equal(before, f.devices) {
		if err := f.save(); err != nil {
			f.server.log.Error("what is attached cannot be saved", "reason", err)
		}
	}
}

func (f *files) bringBackOne(minor uint32, a attachment) {
	log := f.server.log
	d, err := f.server.control.Number(dm.Number{Major: dm.Major, Minor: minor})
	if err != nil {
		delete(f.devices, minor)
		return
	}
	if st := d.Status(); !st.Live || st.Suspended {
		return // until it works
	}
	if err := f.detachOne(minor, true); err != nil {
		log.Warn("a block device from before the restart is still in use and fails", "path", a.path, "reason", err)
	}
	now, err := f.attached(d, driverOf(a.path))
	switch {
	case err != nil:
		log.Error("a device cannot be attached again", "device", d.Name(), "reason", err)
		delete(f.devices, minor)
	case now.path != a.path:
		log.Warn("a device is attached as another block device now", "device", d.Name(), "path", now.path, "before", a.path)
	}
}

// detachAll ends all attachments; they stay saved.
func (f *files) detachAll() {
	for minor, a := range f.devices {
		if !a.back {
			continue
		}
		if err := f.detachOne(minor, true); err != nil {
			f.server.log.Warn("a block device is in use and fails from now on", "path", a.path, "device", numbered{}.name(minor), "reason", err)
		}
	}
	f.cut.Store(true)
	_ = f.nbd.Close() // has no error
	for _, l := range f.links {
		l.wait()
	}
	if err := f.own.end(true); err != nil && !errors.Is(err, syscall.EBUSY) {
		f.server.log.Warn("unmounting failed", "dir", f.ownDir(), "reason", oneLine(err))
	}
}
