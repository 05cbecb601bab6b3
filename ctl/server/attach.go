package server

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"udm/ctl"
	"udm/dm"
)

// attachment is a device that the kernel has as a block device.
type attachment struct {
	Path string `json:"path"` // of the block device
	Name string `json:"name"` // of the device when it was attached, and of its file
	back bool   // false: after a restart, it is not attached again yet
	pin  int    // holds the file's inode, to see its size; -1: none
}

// errUnused is the error of a block device that is not, or no more, ours.
var errUnused = errors.New("not attached")

// attach makes a block device of the kernel from a device.
func (f *files) attach(_ context.Context, r ctl.Ref) (ctl.Attachment, error) {
	f.op.Lock()
	defer f.op.Unlock()
	d, err := f.server.find(r)
	if err != nil {
		return ctl.Attachment{}, err
	}
	a, err := f.attached(d)
	if err != nil {
		return ctl.Attachment{}, err
	}
	return f.describe(d, a), f.save()
}

func (f *files) describe(d *dm.Device, a attachment) ctl.Attachment {
	return ctl.Attachment{Number: ctl.Number(d.Number()), Name: d.Name(), Path: a.Path}
}

// attached is what a device is attached as, now if it was not before.
func (f *files) attached(d *dm.Device) (attachment, error) {
	st := d.Status()
	minor := st.Number.Minor
	a, known := f.devices[minor]
	if known && a.back {
		if err := refreshLoop(a.Path, f.fileOf(a), a.pin); !errors.Is(err, errUnused) {
			return a, err
		}
		f.forget(minor)
	}
	if f.over {
		return a, errEnding
	}
	if !st.Live {
		return a, dm.Errorf(syscall.ENXIO, "%s has no table yet", st.Name)
	}
	err := f.ownMount()
	if err != nil {
		return a, err
	}
	fresh := attachment{Name: st.Name, back: true}
	l := loop{file: f.fileOf(fresh), prefer: a.Path, readOnly: st.ReadOnly, block: d.Limits().LogicalBlock}
	if fresh.Path, fresh.pin, err = l.attach(); err != nil {
		return a, err
	}
	f.devices[minor] = fresh
	return fresh, nil
}

// ownDir is the directory of the files below what is attached.
func (f *files) ownDir() string { return filepath.Join(f.root, "files") }

// fileOf is the file below a block device.
func (f *files) fileOf(a attachment) string { return filepath.Join(f.ownDir(), a.Name) }

// ownMount shows the devices there.
func (f *files) ownMount() error {
	if f.own.files != nil && f.own.files.Mounted() {
		return nil
	}
	err := os.Mkdir(f.ownDir(), 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	f.own.files, err = mountFiles(f.exports(), f.ownDir())
	return err
}

// forget drops what is known about an attachment.
func (f *files) forget(minor uint32) {
	unpin(f.devices[minor].pin)
	delete(f.devices, minor)
}

// detach takes the block device of a device away.
func (f *files) detach(_ context.Context, r ctl.Ref) (struct{}, error) {
	f.op.Lock()
	defer f.op.Unlock()
	d, err := f.server.find(r)
	if err != nil {
		return struct{}{}, err
	}
	minor := d.Number().Minor
	a, known := f.devices[minor]
	if !known {
		return struct{}{}, dm.Errorf(syscall.ENODEV, "%s is not attached", d.Name())
	}
	if err := detachLoop(a.Path, f.fileOf(a), false); err != nil && !errors.Is(err, errUnused) {
		return struct{}{}, err
	}
	f.forget(minor)
	if a.back {
		f.own.files.Closed(a.Name) // so that the device is not open any more
	}
	return struct{}{}, f.save()
}

// listAttached tells what is attached.
func (f *files) listAttached(context.Context, struct{}) ([]ctl.Attachment, error) {
	f.op.Lock()
	defer f.op.Unlock()
	as := make([]ctl.Attachment, 0)
	for minor, a := range f.devices {
		d, err := f.server.control.Number(dm.Number{Major: dm.Major, Minor: minor})
		if err == nil && a.back {
			as = append(as, f.describe(d, a))
		}
	}
	slices.SortFunc(as, func(a, b ctl.Attachment) int { return cmp.Compare(a.Minor, b.Minor) })
	return as, nil
}

// resized lets the block device of a device see its size.
func (f *files) resized(d *dm.Device) {
	f.op.Lock()
	defer f.op.Unlock()
	minor := d.Number().Minor
	a := f.devices[minor]
	if !a.back {
		return
	}
	if err := refreshLoop(a.Path, f.fileOf(a), a.pin); err != nil && !errors.Is(err, errUnused) {
		f.server.log.Error("a block device does not see a new size", "path", a.Path, "reason", err)
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
		f.forget(minor)
		return
	}
	if !d.Status().Live {
		return // until its table is there
	}
	if err := detachLoop(a.Path, f.fileOf(a), true); err != nil && !errors.Is(err, errUnused) {
		log.Warn("a block device from before the restart is still in use and fails", "path", a.Path, "reason", err)
	}
	now, err := f.attached(d)
	switch {
	case err != nil:
		log.Error("a device cannot be attached again", "device", d.Name(), "reason", err)
		f.forget(minor)
	case now.Path != a.Path:
		log.Warn("a device is attached as another block device now", "device", d.Name(), "path", now.Path, "before", a.Path)
	}
}

// detachAll ends all attachments; they stay saved.
func (f *files) detachAll() {
	for _, a := range f.devices {
		if !a.back {
			continue
		}
		if err := detachLoop(a.Path, f.fileOf(a), true); err != nil && !errors.Is(err, errUnused) {
			f.server.log.Warn("a block device is in use and fails from now on", "path", a.Path, "device", a.Name, "reason", err)
		}
		unpin(a.pin)
	}
	if err := f.own.end(true); err != nil && !errors.Is(err, syscall.EBUSY) {
		f.server.log.Warn("unmounting failed", "dir", f.ownDir(), "reason", oneLine(err))
	}
}
