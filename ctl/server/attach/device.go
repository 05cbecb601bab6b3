package server

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"udm/blk"
	"udm/ctl"
	"udm/dm"
)

// attachment is a device that the kernel has as a block device.
type attachment struct {
	path string
	back bool // false: after a restart, it is not attached again yet
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
