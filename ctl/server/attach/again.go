package attach

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"syscall"
	"time"

	"udm/ctl"
	"udm/ctl/server/exports"
	"udm/dm"
)

// Resumed updates the size of a device's block device, or attaches it again.
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
		k.log.Error("cannot update the size of a block device", "path", a.path, "reason", err)
	}
}

// Retry attaches devices again that have become available.
func (k *Kernel) Retry() {
	k.lock()
	defer k.op.Unlock()
	k.bringBack()
}

// bringBack attaches again what was attached before a restart, at the same path if
// that is free. Programs that still use a loop device lost it when the daemon ended; it stays,
// unusable, until they close it. Those that use one of ublk or nbd wait, and go on. It does the same
// for devices whose server has ended by itself.
func (k *Kernel) bringBack() {
	k.endLeft()
	before := maps.Clone(k.devices)
	var left []uint32
	for _, minor := range slices.Sorted(maps.Keys(k.devices)) {
		a := k.devices[minor]
		if a.back && k.abandoned(minor) {
			k.log.Warn("a block device has lost its server; it is attached again", "path", a.path)
			a.back = false
			k.devices[minor] = a
		}
		if !a.back {
			left = append(left, minor)
		}
	}
	eachWhen(left, k.free, recoverTime, func(minor uint32) { k.bringBackOne(minor, k.devices[minor]) })
	if !maps.Equal(before, k.devices) {
		if err := k.save(); err != nil {
			k.log.Error("cannot save the list of attached devices", "reason", err)
		}
	}
}

// recoverTime is how long the end of a daemon may take to reach the ublk driver, which before
// Linux 6.9 looks every five seconds, for each device at a time of its own.
const recoverTime = time.Minute

// eachWhen calls do for each of list, which it consumes: first for those that are free, and for each
// of the others when it is free, or after patience. It polls, because the driver does not tell.
func eachWhen(list []uint32, free func(uint32) bool, patience time.Duration, do func(uint32)) {
	end, pause := time.Now().Add(patience), 5*time.Millisecond
	for {
		late := time.Now().After(end)
		list = slices.DeleteFunc(list, func(minor uint32) bool {
			now := late || free(minor)
			if now {
				do(minor)
			}
			return now
		})
		if len(list) == 0 {
			return
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}

func (k *Kernel) bringBackOne(minor uint32, a attachment) {
	log := k.log
	d, err := k.control.Number(dm.Number{Major: dm.Major, Minor: minor})
	waits := k.waits(minor, a)
	if err != nil {
		if waits {
			err = k.forget(minor) // requests must not wait for ever
			log.Warn("a block device has lost its device", "path", a.path, "detached", err == nil)
		}
		delete(k.devices, minor)
		return
	}
	if st := d.Status(); !st.Live || st.Suspended {
		return // try again later
	}
	now, err := k.attached(d, driverOf(a.path))
	switch {
	case err != nil && waits:
		log.Error("cannot attach a device again yet; its users wait", "device", d.Name(), "path", a.path, "reason", err)
	case err != nil:
		log.Error("cannot attach a device again", "device", d.Name(), "reason", err)
		delete(k.devices, minor)
	case now.path != a.path:
		log.Warn("a device is now attached as another block device", "device", d.Name(), "path", now.path, "before", a.path)
	}
}

// endLeft detaches loop devices of a daemon before, which nobody serves any more. That comes
// before the mount below them is made anew, since the kernel then forgets what they are of.
func (k *Kernel) endLeft() {
	left := k.left
	k.left = nil
	for _, minor := range left {
		if err := k.detachOne(minor, true); err != nil {
			k.log.Warn("a block device from before the restart is still in use; its I/O fails", "path", k.devices[minor].path, "reason", err)
		}
	}
}

// waits reports whether the users of a block device of a daemon before wait for this one.
func (k *Kernel) waits(minor uint32, a attachment) bool {
	switch driver := driverOf(a.path); driver {
	case ctl.DriverUblk:
		return true
	case ctl.DriverNBD:
		j := k.newJob(jobRefresh, minor, driver, a.path)
		return j.ours()
	}
	return false
}

// forget removes a block device that nobody will serve again.
func (k *Kernel) forget(minor uint32) error {
	path := k.devices[minor].path
	if driver := driverOf(path); driver == ctl.DriverNBD {
		_, err := k.job(k.newJob(jobDisconnect, minor, driver, path))
		return err
	}
	return k.detachOne(minor, true)
}

// detachAll ends all attachments, which stay saved. The error names those that were
// in use and do not wait for the next daemon.
func (k *Kernel) detachAll(ctx context.Context) error {
	var errs []error
	stay := k.leaveLoops()
	for minor, a := range k.devices {
		if !a.back || slices.Contains(stay, minor) {
			continue
		}
		lasting, suspended := k.lasting(minor, a)
		var err error = syscall.EBUSY
		if !suspended && !(lasting && hasMount(a.path)) { // a helper would find it in use as well, but takes longer
			j := k.newJob(jobDetach, minor, driverOf(a.path), a.path)
			j.Force, j.Stay = true, lasting
			err = k.detachBy(j, minor)
		}
		switch {
		case err == nil:
		case lasting && errors.Is(err, syscall.EBUSY):
			k.log.Warn(waits, "path", a.path)
		default:
			errs = append(errs, k.fails(minor, err))
		}
	}
	k.leaveUblk(slices.Collect(maps.Keys(k.ublk))...)
	k.cut.Store(true)
	_ = k.nbd.Close() // has no error
	for _, l := range k.links {
		l.wait()
	}
	return errors.Join(append(errs, k.endOwn(ctx, stay))...)
}

const waits = "a block device is in use; its I/O waits until the daemon runs again"

func (k *Kernel) fails(minor uint32, err error) error {
	return fmt.Errorf("%s, which is %s, cannot be detached and its I/O will fail: %w", k.devices[minor].path, exports.Numbered(minor), err)
}
