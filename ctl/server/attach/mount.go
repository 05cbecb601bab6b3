package attach

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/dm"
	"udm/export"
)

// mounted is a directory that shows devices as files.
type mounted struct {
	files fileServer // nil: it could not be mounted
	saved bool
}

// fileServer is a fuse.Server, on systems with FUSE.
type fileServer interface {
	Mounted() bool
	Unmount() error
	Close() error
	Closed(name string)
	Clients() []export.Client
	mover
}

// Mount shows the devices as files in a directory.
func (k *Kernel) Mount(dir string) error {
	k.lock()
	defer k.op.Unlock()
	if !filepath.IsAbs(dir) {
		return dm.Errorf(syscall.EINVAL, "%q is not an absolute path", dir)
	}
	dir = filepath.Clean(dir)
	before := k.mounts[dir]
	wasSaved := before != nil && before.saved
	if err := k.show(dir, true); err != nil {
		return err
	}
	err := k.save()
	if m := k.mounts[dir]; err != nil && m == before {
		m.saved = wasSaved
	} else if err != nil {
		err = errors.Join(fmt.Errorf("%s was not mounted because the mount cannot be saved: %w", dir, err), m.end(true))
		delete(k.mounts, dir)
	}
	return err
}

// MountNumbered shows the devices by number in ROOT/by-number. dir must be "".
func (k *Kernel) MountNumbered(dir string) error {
	if dir != "" {
		return dm.Errorf(syscall.EINVAL, "devices are shown by number in %s only; leave out dir", k.numberedDir())
	}
	k.lock()
	defer k.op.Unlock()
	if k.over {
		return errEnding
	}
	return k.mountNumbered(&k.numbered, openFiles, k.numberedDir())
}

func (k *Kernel) numberedDir() string { return filepath.Join(k.root, ctl.NumberedDir) }

// mountNumbered mounts the devices by number at dir unless they are.
func (k *Kernel) mountNumbered(m *mounted, who dm.Holder, dir string) error {
	if m.files != nil && m.files.Mounted() {
		return nil
	}
	err := os.Mkdir(dir, 0o700)
	if err != nil && !errors.Is(err, os.ErrExist) && !errors.Is(err, syscall.ENOTCONN) {
		return err
	}
	m.files, err = mountFiles(k.exports.For(who).ByNumber(), dir)
	return err
}

// check refuses directories that cannot or must not be used for a mount.
func (k *Kernel) check(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, syscall.ENOTCONN) {
		return nil // a mount left by a killed daemon
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return dm.Errorf(syscall.ENOTDIR, "%s is not a directory; give an existing directory", dir)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if dir == k.ownDir() || dir == k.numberedDir() || dir == k.root || strings.HasPrefix(k.root, strings.TrimSuffix(dir, "/")+"/") {
		return dm.Errorf(syscall.EINVAL, "%s would hide %s, where the daemon keeps its state; choose another directory", dir, k.root)
	}
	return nil
}

// show mounts at dir unless it is mounted already.
func (k *Kernel) show(dir string, saved bool) error {
	if k.over {
		return errEnding
	}
	m := k.mounts[dir]
	if m != nil && m.files != nil && m.files.Mounted() {
		m.saved = m.saved || saved
		return nil
	}
	if err := k.check(dir); err != nil {
		return err
	}
	srv, err := mountFiles(k.exports.For(openFiles).ByName(), dir)
	if err != nil {
		return err
	}
	k.mounts[dir] = &mounted{srv, saved || m != nil && m.saved}
	return nil
}

// Unmount removes a mount.
func (k *Kernel) Unmount(dir string, lazy bool) error {
	k.lock()
	defer k.op.Unlock()
	dir = filepath.Clean(dir)
	m := k.mounts[dir]
	if m == nil {
		return dm.Errorf(syscall.ENXIO, "udm has no mount at %s", dir)
	}
	err := m.end(lazy)
	if errors.Is(err, syscall.EBUSY) && !lazy {
		return dm.Errorf(syscall.EBUSY, "%s is in use", dir)
	}
	delete(k.mounts, dir)
	if errors.Is(err, syscall.EBUSY) {
		err = nil // as requested
	}
	return errors.Join(err, k.save())
}

// end unmounts. EBUSY: files were open; if lazy, they are disconnected.
func (m *mounted) end(lazy bool) error {
	switch {
	case m.files == nil:
		return nil
	case lazy:
		return m.files.Close()
	}
	return m.files.Unmount()
}

var errEnding = dm.Errorf(syscall.EINTR, "the daemon is stopping")

// Mounts lists the directories where devices are shown.
func (k *Kernel) Mounts() []ctl.Mount {
	k.lock()
	defer k.op.Unlock()
	ms := make([]ctl.Mount, 0)
	for _, dir := range slices.Sorted(maps.Keys(k.mounts)) {
		if m := k.mounts[dir]; m.files != nil && m.files.Mounted() {
			ms = append(ms, ctl.Mount{Dir: dir})
		}
	}
	return ms
}
