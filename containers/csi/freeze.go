package csi

import (
	"context"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// The calls that freeze and thaw a file system.
const fiFreeze, fiThaw = 0xc0045877, 0xc0045878

// frozen runs f while the file systems that devices are mounted as here do not change:
// what was written before is on the devices, and what is written meanwhile waits. Who
// is killed in between leaves labels, by which the next driver thaws.
func (d *Driver) frozen(ctx context.Context, devices []string, f func() error) (err error) {
	for _, name := range slices.Compact(slices.Sorted(slices.Values(devices))) {
		at, err := d.mountOf(ctx, name)
		if err != nil {
			return err
		}
		if at == "" {
			continue
		}
		if err := d.setFrozen(ctx, name, true); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.setFrozen(ctx, name, false)) }()
		if err := mountCall(at, fiFreeze); err != nil && !errors.Is(err, unix.EBUSY) { // somebody else has frozen it
			return err
		}
		defer func() { _ = mountCall(at, fiThaw) }() // EINVAL: it is not frozen any more
	}
	return f()
}

func (d *Driver) setFrozen(ctx context.Context, name string, is bool) error {
	_, r, err := d.object(ctx, isVolume, name)
	if err != nil || r.Frozen == is {
		return err
	}
	r.Frozen = is
	return d.save(ctx, name, r)
}

// Thaw thaws what a driver that was killed has left frozen. Call it before serving.
func (d *Driver) Thaw(ctx context.Context) error {
	var names []string
	err := d.each(ctx, isVolume, func(name string, r *record) {
		if r.Frozen {
			names = append(names, name)
		}
	})
	for _, name := range names {
		at, merr := d.mountOf(ctx, name)
		if merr == nil && at != "" {
			_ = mountCall(at, fiThaw) // EINVAL: it is not frozen
		}
		err = errors.Join(err, merr, d.setFrozen(ctx, name, false))
	}
	return err
}

// mountOf is where the file system of a device is mounted; "": nowhere.
func (d *Driver) mountOf(ctx context.Context, name string) (string, error) {
	as, err := d.client.Attachments(ctx)
	if err != nil {
		return "", inWords(err)
	}
	for _, a := range as {
		if a.Name == name {
			return firstMount(a.Path)
		}
	}
	return "", nil
}

func firstMount(path string) (string, error) {
	number, err := numberOf(path)
	if err != nil {
		return "", err
	}
	ms, err := mounts()
	for _, m := range ms {
		if m.number == number {
			return m.at, err
		}
	}
	return "", err
}

func mountCall(at string, call uint) error {
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetInt(int(f.Fd()), call, 0)
}
