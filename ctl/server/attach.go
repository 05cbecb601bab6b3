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

	"udm/blk"
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
func (f *files) attach(_ context.Context, r ctl.Attach) (ctl.Attachment, error) {
	f.op.Lock()
	defer f.op.Unlock()
	if !slices.Contains([]string{"", ctl.DriverLoop, ctl.DriverNBD}, r.Driver) {
		return ctl.Attachment{}, dm.Errorf(syscall.EINVAL, "no driver %q, only loop and nbd", r.Driver)
	}
	d, err := f.server.find(r.Ref)
	if err != nil {
		return ctl.Attachment{}, err
	}
	a, err := f.attached(d, r.Driver)
	if err != nil {
		return ctl.Attachment{}, err
	}
	return f.describe(d, a), f.save()
}

func (f *files) describe(d *dm.Device, a attachment) ctl.Attachment {
	return ctl.Attachment{Number: ctl.Number(d.Number()), Name: d.Name(), Path: a.path}
}

// attached is what a device is attached as, now if it was not before: by a driver,
// or by the one that works.
func (f *files) attached(d *dm.Device, driver string) (attachment, error) {
	st := d.Status()
	minor := st.Number.Minor
	a, known := f.devices[minor]
	if known && a.back {
		if err := f.refresh(d, a); !errors.Is(err, errUnused) {
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
	switch before := driverOf(a.path); driver {
	case "":
		driver = before
	case before:
	default:
		a.path = ""
	}
	path, err := f.newDevice(d, driver, a.path)
	if err != nil {
		return a, err
	}
	f.devices[minor] = attachment{path, true}
	return f.devices[minor], nil
}

// newDevice makes a block device, at path if that is free.
func (f *files) newDevice(d *dm.Device, driver, path string) (string, error) {
	if driver == ctl.DriverNBD {
		return f.byNBD(d, path)
	}
	looped, err := f.byLoop(d, path)
	if driver == "" && errors.Is(err, syscall.ENODEV) {
		if path, nerr := f.byNBD(d, ""); nerr == nil {
			return path, nil
		}
	}
	return looped, err
}

func (f *files) byLoop(d *dm.Device, path string) (string, error) {
	if err := f.ownMount(); err != nil {
		return "", err
	}
	j := f.newJob(jobAttach, d.Number().Minor, ctl.DriverLoop, path)
	j.ReadOnly, j.Block = d.Status().ReadOnly, d.Limits().LogicalBlock
	return f.job(j)
}

func (f *files) byNBD(d *dm.Device, path string) (string, error) {
	minor := d.Number().Minor
	f.links[minor].wait()
	delete(f.links, minor)
	l, err := f.connect(f.newJob(jobAttach, minor, ctl.DriverNBD, path), numbered{}.name(minor))
	if err != nil {
		return "", err
	}
	f.links[minor] = l
	return l.path, nil
}

func (f *files) newJob(do string, minor uint32, driver, path string) kernelJob {
	return kernelJob{Do: do, Driver: driver, Path: path, File: f.fileOf(minor)}
}

// refresh lets a block device see the size of its device. errUnused: it is not, or
// no more, ours.
func (f *files) refresh(d *dm.Device, a attachment) error {
	st := d.Status()
	minor := st.Number.Minor
	j := f.newJob(jobRefresh, minor, driverOf(a.path), a.path)
	j.Size = st.Sectors * blk.SectorSize
	if j.Driver == ctl.DriverNBD && !f.links[minor].alive() {
		return errUnused
	}
	_, err := f.job(j)
	return err
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
	if err := f.detachOne(minor, false); err != nil {
		return struct{}{}, err
	}
	delete(f.devices, minor)
	// Once it is detached, the device is not open any more.
	if driverOf(a.path) == ctl.DriverNBD {
		f.links[minor].wait()
		delete(f.links, minor)
	} else if a.back {
		f.own.files.Closed(numbered{}.name(minor))
	}
	return struct{}{}, f.save()
}

// waitsForResume refuses what would wait for I/O of a suspended device.
func waitsForResume(name string) error {
	return dm.Errorf(syscall.EAGAIN, "%s is suspended; resume it first", name)
}

// detachOne takes a block device away if it is there. EBUSY: it is in use; with
// force it goes when its last user has gone.
func (f *files) detachOne(minor uint32, force bool) error {
	path := f.devices[minor].path
	j := f.newJob(jobDetach, minor, driverOf(path), path)
	j.Force = force
	_, err := f.job(j)
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
