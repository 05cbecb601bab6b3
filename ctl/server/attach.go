package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
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
	path string // of the block device; before it is back after a restart, what it was
	name string // of the device and its file when it was attached; "": not back yet
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
	return ctl.Attachment{Number: ctl.Number(d.Number()), Name: d.Name(), Path: a.path}
}

// attached is what a device is attached as, now if it was not before.
func (f *files) attached(d *dm.Device) (attachment, error) {
	st := d.Status()
	minor := st.Number.Minor
	a, known := f.devices[minor]
	if known && a.name != "" {
		if err := refreshLoop(a.path, f.tag(minor), a.pin); !errors.Is(err, errUnused) {
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
	dir, err := f.ownMount()
	if err != nil {
		return a, err
	}
	l := loop{file: filepath.Join(dir, st.Name), tag: f.tag(minor), prefer: a.path,
		readOnly: st.ReadOnly, block: d.Limits().LogicalBlock}
	fresh := attachment{name: st.Name}
	if fresh.path, fresh.pin, err = l.attach(); err != nil {
		return a, err
	}
	f.devices[minor] = fresh
	return fresh, nil
}

// tag is what our block devices are known by, also to another daemon of this root.
func (f *files) tag(minor uint32) string {
	return fmt.Sprintf("udm:%08x:%d", crc32.ChecksumIEEE([]byte(f.root)), minor)
}

// ownMount is the directory of the files below what is attached.
func (f *files) ownMount() (string, error) {
	dir := filepath.Join(f.root, "files")
	if f.own.files != nil && f.own.files.Mounted() {
		return dir, nil
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTCONN) {
		return "", err
	}
	srv, err := mountFiles(f.exports(), dir)
	if err != nil {
		return "", err
	}
	f.own.files = srv
	return dir, nil
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
	if err := detachLoop(a.path, f.tag(minor), false); err != nil && !errors.Is(err, errUnused) {
		return struct{}{}, err
	}
	f.forget(minor)
	if a.name != "" {
		f.own.files.Closed(a.name) // so that the device is not open any more
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
		if err == nil && a.name != "" {
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
	if a.name == "" {
		return
	}
	if err := refreshLoop(a.path, f.tag(minor), a.pin); err != nil && !errors.Is(err, errUnused) {
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
		if a := f.devices[minor]; a.name == "" {
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
	if err := detachLoop(a.path, f.tag(minor), true); err != nil && !errors.Is(err, errUnused) {
		log.Warn("a block device from before the restart is still in use and fails", "path", a.path, "reason", err)
	}
	now, err := f.attached(d)
	switch {
	case err != nil:
		log.Error("a device cannot be attached again", "device", d.Name(), "reason", err)
		f.forget(minor)
	case now.path != a.path:
		log.Warn("a device is attached as another block device now", "device", d.Name(), "path", now.path, "before", a.path)
	}
}

// detachAll ends all attachments; they stay saved.
func (f *files) detachAll() {
	for minor, a := range f.devices {
		if a.name == "" {
			continue
		}
		if err := detachLoop(a.path, f.tag(minor), true); err != nil && !errors.Is(err, errUnused) {
			f.server.log.Warn("a block device is in use and fails from now on", "path", a.path, "device", a.name, "reason", err)
		}
		unpin(a.pin)
	}
	if err := f.own.end(true); err != nil && !errors.Is(err, syscall.EBUSY) {
		f.server.log.Warn("unmounting failed", "dir", filepath.Join(f.root, "files"), "reason", oneLine(err))
	}
}
