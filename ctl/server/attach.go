package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"udm/ctl"
	"udm/dm"
	"udm/export"
)

// attachment is a device that the kernel has as a block device.
type attachment struct {
	path string
	back bool // false: after a restart, it is not attached again yet
}

// numbered are the files below what is attached: their names are numbers of
// devices, which no rename changes.
type numbered struct{ exports }

func (numbered) name(minor uint32) string { return fmt.Sprintf("dm-%d", minor) }

// device is the device behind the name of a file.
func (x numbered) device(name string) (*dm.Device, error) {
	var minor uint32
	if n, _ := fmt.Sscanf(name, "dm-%d", &minor); n != 1 || x.name(minor) != name {
		return nil, os.ErrNotExist
	}
	return x.server.control.Number(dm.Number{Major: dm.Major, Minor: minor})
}

// List implements [export.Exports].
func (x numbered) List() []export.Info {
	infos := make([]export.Info, 0)
	for _, d := range x.server.control.List() {
		if i, ok := x.Find(x.name(d.Number().Minor)); ok {
			infos = append(infos, i)
		}
	}
	return infos
}

// Find implements [export.Exports].
func (x numbered) Find(name string) (export.Info, bool) {
	d, err := x.device(name)
	if err != nil {
		return export.Info{}, false
	}
	i, ok := x.info(d)
	i.Name = name
	return i, ok
}

// Open implements [export.Exports].
func (x numbered) Open(name string) (*export.Export, error) {
	d, err := x.device(name)
	if err != nil {
		return nil, os.ErrNotExist
	}
	return x.open(d)
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
	if known && a.back {
		if _, err := f.loop(loopJob{Do: refreshLoop, Path: a.path, File: f.fileOf(minor)}); !errors.Is(err, errUnused) {
			return a, err
		}
	}
	if f.over {
		return a, errEnding
	}
	switch {
	case !st.Live:
		return a, dm.Errorf(syscall.ENXIO, "%s has no table yet", st.Name)
	case st.Suspended:
		return a, waitsForResume(st.Name)
	}
	err := f.ownMount()
	if err != nil {
		return a, err
	}
	a.path, err = f.loop(loopJob{Do: attachLoop, Path: a.path, File: f.fileOf(minor), ReadOnly: st.ReadOnly, Block: d.Limits().LogicalBlock})
	if err != nil {
		return a, err
	}
	f.devices[minor] = attachment{a.path, true}
	return f.devices[minor], nil
}

// ownDir is the directory of the files below what is attached.
func (f *files) ownDir() string { return filepath.Join(f.root, "files") }

// fileOf is the file below a block device.
func (f *files) fileOf(minor uint32) string {
	return filepath.Join(f.ownDir(), numbered{}.name(minor))
}

// ownMount shows the devices there.
func (f *files) ownMount() error {
	if f.own.files != nil && f.own.files.Mounted() {
		return nil
	}
	err := os.Mkdir(f.ownDir(), 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	f.own.files, err = mountFiles(numbered{f.exports()}, f.ownDir())
	return err
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
	if d.Status().Suspended {
		return struct{}{}, waitsForResume(d.Name())
	}
	if err := f.detachLoop(minor, false); err != nil {
		return struct{}{}, err
	}
	delete(f.devices, minor)
	if a.back {
		f.own.files.Closed(numbered{}.name(minor)) // so that the device is not open any more
	}
	return struct{}{}, f.save()
}

// waitsForResume refuses what would wait for I/O of a suspended device.
func waitsForResume(name string) error {
	return dm.Errorf(syscall.EAGAIN, "%s is suspended; resume it first", name)
}

// detachLoop takes a block device away if it is there. EBUSY: it is in use; with
// force it goes when its last user has gone.
func (f *files) detachLoop(minor uint32, force bool) error {
	_, err := f.loop(loopJob{Do: detachLoop, Path: f.devices[minor].path, File: f.fileOf(minor), Force: force})
	if errors.Is(err, errUnused) {
		return nil
	}
	return err
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
	_, err := f.loop(loopJob{Do: refreshLoop, Path: a.path, File: f.fileOf(minor)})
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
	if err := f.detachLoop(minor, true); err != nil {
		log.Warn("a block device from before the restart is still in use and fails", "path", a.path, "reason", err)
	}
	now, err := f.attached(d)
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
		if err := f.detachLoop(minor, true); err != nil {
			f.server.log.Warn("a block device is in use and fails from now on", "path", a.path, "device", numbered{}.name(minor), "reason", err)
		}
	}
	if err := f.own.end(true); err != nil && !errors.Is(err, syscall.EBUSY) {
		f.server.log.Warn("unmounting failed", "dir", f.ownDir(), "reason", oneLine(err))
	}
}
