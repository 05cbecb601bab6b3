package attach

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"syscall"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/dm"
)

// attachment is a device attached as a block device of the kernel.
type attachment struct {
	path string
	back bool // false: saved before a restart and not attached again yet
}

// errUnused means that a block device is not, or no longer, ours.
var errUnused = errors.New("not attached")

// CheckDriver returns an error for an unknown driver.
func CheckDriver(driver string) error {
	if !slices.Contains([]string{"", ctl.DriverUblk, ctl.DriverLoop, ctl.DriverNBD}, driver) {
		return dm.Errorf(syscall.EINVAL, "unknown driver %q; use ublk, loop or nbd", driver)
	}
	return nil
}

// Attach makes a device a block device of the kernel. It uses the given driver, or
// the first one that works if driver is "".
func (k *Kernel) Attach(d *dm.Device, driver string) (ctl.Attachment, error) {
	k.lock()
	defer k.op.Unlock()
	k.endLeft()
	a, err := k.attached(d, driver)
	if err != nil {
		return ctl.Attachment{}, err
	}
	return describe(d, a), k.save()
}

func describe(d *dm.Device, a attachment) ctl.Attachment {
	return ctl.Attachment{Number: ctl.Number(d.Number()), Name: d.Name(), Path: a.path}
}

// attached returns the attachment of a device, making it if needed, with the given
// driver or the first one that works.
func (k *Kernel) attached(d *dm.Device, driver string) (attachment, error) {
	st := d.Status()
	minor := st.Number.Minor
	a, known := k.devices[minor]
	if known && a.back {
		if err := k.refresh(d, a); !errors.Is(err, errUnused) {
			return a, err
		}
	}
	if k.over {
		return a, errEnding
	}
	switch {
	case !st.Live:
		return a, dm.Errorf(syscall.ENXIO, "%s has no live table", st.Name)
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
	path, err := k.newDevice(d, driver, a.path)
	if err != nil {
		return a, err
	}
	k.devices[minor] = attachment{path, true}
	return k.devices[minor], nil
}

// newDevice makes a block device, at path if that is free.
func (k *Kernel) newDevice(d *dm.Device, driver, path string) (string, error) {
	switch driver {
	case ctl.DriverNBD:
		return k.byNBD(d, path)
	case ctl.DriverUblk:
		return k.byUblk(d, path, false)
	case "":
		if path, err := k.byUblk(d, "", true); err == nil {
			return path, nil
		}
	}
	looped, err := k.byLoop(d, path)
	if driver == "" && errors.Is(err, syscall.ENODEV) {
		if path, nerr := k.byNBD(d, ""); nerr == nil {
			return path, nil
		}
	}
	return looped, err
}

func (k *Kernel) byLoop(d *dm.Device, path string) (string, error) {
	if err := k.ownMount(); err != nil {
		return "", err
	}
	j := k.newJob(jobAttach, d.Number().Minor, ctl.DriverLoop, path)
	j.ReadOnly, j.Block = d.Status().ReadOnly, d.Limits().LogicalBlock
	return k.job(j)
}

func (k *Kernel) byNBD(d *dm.Device, path string) (string, error) {
	minor := d.Number().Minor
	k.links[minor].wait()
	delete(k.links, minor)
	j := k.newJob(jobAttach, minor, ctl.DriverNBD, path)
	j.Memory = d.Limits().ProcessMemory
	l, err := k.connect(j, exports.Numbered(minor))
	if err != nil {
		return "", err
	}
	k.links[minor] = l
	return l.path, nil
}

func (k *Kernel) newJob(do string, minor uint32, driver, path string) kernelJob {
	return kernelJob{Do: do, Driver: driver, Path: path, File: k.fileOf(minor)}
}

// refresh updates the size of a block device. errUnused: it is not, or no longer,
// ours.
func (k *Kernel) refresh(d *dm.Device, a attachment) error {
	st := d.Status()
	minor := st.Number.Minor
	j := k.newJob(jobRefresh, minor, driverOf(a.path), a.path)
	j.Size = st.Sectors * blk.SectorSize
	if j.Driver == ctl.DriverNBD && !k.links[minor].alive() || j.Driver == ctl.DriverUblk && !k.serves(minor) {
		return errUnused
	}
	_, err := k.job(j)
	return err
}

// ownDir is the directory of the files under attached loop devices.
func (k *Kernel) ownDir() string { return filepath.Join(k.root, "files") }

// fileOf is the file under a block device.
func (k *Kernel) fileOf(minor uint32) string {
	return filepath.Join(k.ownDir(), exports.Numbered(minor))
}

// ownMount mounts the devices at ownDir.
func (k *Kernel) ownMount() error {
	return k.mountNumbered(&k.own, attachments, k.ownDir())
}

// Detach removes the block device of a device.
func (k *Kernel) Detach(d *dm.Device) error {
	k.lock()
	defer k.op.Unlock()
	minor := d.Number().Minor
	a, known := k.devices[minor]
	if !known {
		return dm.Errorf(syscall.ENODEV, "%s is not attached", d.Name())
	}
	if d.Status().Suspended {
		return waitsForResume(d.Name())
	}
	if err := k.detachOne(minor, false); err != nil {
		return err
	}
	delete(k.devices, minor)
	// Once it is detached, the device is no longer open.
	switch driver := driverOf(a.path); {
	case driver == ctl.DriverNBD:
		k.links[minor].wait()
		delete(k.links, minor)
	case driver == ctl.DriverLoop && a.back:
		k.own.files.Closed(exports.Numbered(minor))
	}
	return k.save()
}

// waitsForResume is the error for what would wait for I/O of a suspended device.
func waitsForResume(name string) error {
	return dm.Errorf(syscall.EAGAIN, "%s is suspended; resume it first", name)
}

// detachOne removes a block device, if it exists. EBUSY: it is in use; with force it
// is removed when its last user closes it, unless it is attached by ublk: that stays.
func (k *Kernel) detachOne(minor uint32, force bool) error {
	path := k.devices[minor].path
	j := k.newJob(jobDetach, minor, driverOf(path), path)
	j.Force = force
	return k.detachBy(j, minor)
}

func (k *Kernel) detachBy(j kernelJob, minor uint32) error {
	_, err := k.job(j)
	if errors.Is(err, errUnused) {
		err = nil
	}
	if err == nil {
		k.leaveUblk(minor)
	}
	return err
}

// Attachments lists what is attached, in ascending order of numbers.
func (k *Kernel) Attachments() []ctl.Attachment {
	k.lock()
	defer k.op.Unlock()
	as := make([]ctl.Attachment, 0)
	for minor, a := range k.devices {
		d, err := k.control.Number(dm.Number{Major: dm.Major, Minor: minor})
		if err == nil && a.back {
			as = append(as, describe(d, a))
		}
	}
	slices.SortFunc(as, func(a, b ctl.Attachment) int { return cmp.Compare(a.Minor, b.Minor) })
	return as
}
