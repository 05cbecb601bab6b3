package attach

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/ctl/server/handover"
)

// Kept is what was in use when the front ends ended and can wait for the next daemon; nil:
// nothing. Whoever calls it gives it to a keeper once all is flushed and closed, and closes
// it: without a keeper users then get errors.
func (k *Kernel) Kept() *handover.Bundle {
	k.op.Lock()
	defer k.op.Unlock()
	return k.kept
}

func (k *Kernel) toKeep() *handover.Bundle {
	if k.kept == nil {
		k.kept = new(handover.Bundle)
	}
	return k.kept
}

// TakeKept goes on with what a daemon before has left, before the front ends start. Users of
// what cannot be taken get errors.
func (k *Kernel) TakeKept(b *handover.Bundle) error {
	k.lock()
	k.lenient = true
	k.op.Unlock()
	return errors.Join(files{k, ""}.Take(b), devices{k}.Take(b))
}

// lenience notes and logs open files whose devices are missing, if they may be.
func (k *Kernel) lenience(lost map[string]bool) func(string, error) {
	if !k.lenient {
		return nil
	}
	return func(name string, why error) {
		if lost != nil {
			lost[name] = true
		}
		k.log.Error("what was in use before the restart is not there; its I/O fails", "device", name, "reason", why)
	}
}

// endMounts ends all mounts. With a keeper, those in use are kept.
func (k *Kernel) endMounts(ctx context.Context) error {
	k.over = true
	var errs []error
	var list []movedMount
	var open []*os.File
	shown := maps.Clone(k.mounts)
	shown[k.numberedDir()] = &k.numbered
	for _, dir := range slices.Sorted(maps.Keys(shown)) {
		m := shown[dir]
		text, device, err := m.endOrKeep(ctx, handover.Kept(k.root))
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("%s was in use; programs with open files there will get errors: %w", dir, err))
		case device != nil:
			k.log.Warn("files are in use; their I/O waits until the daemon runs again", "dir", dir)
			list, open = append(list, movedMount{dir, m.saved, text}), append(open, device)
		}
	}
	if len(list) > 0 {
		errs = append(errs, k.toKeep().Put(files{}.Name(), list, open...))
	}
	return errors.Join(errs...)
}

// endOrKeep ends a mount. If it is in use and may be kept, its server ends only.
func (m *mounted) endOrKeep(ctx context.Context, keep bool) (text []byte, device *os.File, err error) {
	if keep && errors.Is(m.end(false), syscall.EBUSY) {
		if text, device, err = m.files.hand(ctx); err == nil {
			m.files = nil
			return text, device, nil
		}
	}
	return nil, nil, m.end(true)
}

// leaveLoops detaches loop devices that nobody uses, if there is a keeper, and returns the
// others: they can be kept.
func (k *Kernel) leaveLoops() (stay []uint32) {
	if !handover.Kept(k.root) {
		return nil
	}
	for minor, a := range k.devices {
		if !a.back || driverOf(a.path) != ctl.DriverLoop || k.below(a.path) {
			continue
		}
		j := k.newJob(jobDetach, minor, ctl.DriverLoop, a.path)
		j.Stay = true
		if _, err := k.job(j); errors.Is(err, syscall.EBUSY) {
			stay = append(stay, minor)
		}
	}
	return stay
}

// below reports whether a device of this daemon stands on a block device: that one cannot
// wait for the next daemon, which would wait for it to bring the device back.
func (k *Kernel) below(path string) bool {
	for _, d := range k.control.List() {
		specs, _, _ := d.Loaded(false)
		for _, s := range specs {
			if slices.Contains(strings.Fields(s.Params), path) {
				return true
			}
		}
	}
	return false
}

// endOwn ends the mount below loop devices, or keeps it for those that stay.
func (k *Kernel) endOwn(ctx context.Context, stay []uint32) (err error) {
	if len(stay) > 0 {
		if err = (devices{k}).put(ctx, k.toKeep(), movedDevices{Attached: stay}); err == nil {
			for _, minor := range stay {
				k.log.Warn(waits, "path", k.devices[minor].path)
			}
			return nil
		}
	}
	errs := []error{err}
	for _, minor := range stay {
		if derr := k.detachOne(minor, true); derr != nil {
			errs = append(errs, k.fails(minor, derr))
		}
	}
	if err := k.own.end(true); err != nil && !errors.Is(err, syscall.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
