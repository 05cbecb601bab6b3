//go:build linux && (amd64 || arm64)

package run

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/run/devfs"
	"udm/run/notify"
)

// nodeMode is the mode of the nodes of devices that are made here.
const nodeMode = 0o660

func (s *session) open(c *notify.Call, p at, flags, mode uint64) outcome {
	file, o := s.file(c, p, flags&unix.O_NOFOLLOW == 0)
	if file == "" {
		return o
	}
	return wait(func() outcome { return s.openFile(file, flags, mode) })
}

// openFile opens a file of the tree, or the device that it means.
func (s *session) openFile(file string, flags, mode uint64) outcome {
	var st unix.Stat_t
	err := unix.Lstat(file, &st)
	node, isNode := devfs.Node{}, false
	if err == nil {
		node, isNode = s.tree.Node(file, &st)
	}
	switch {
	case !isNode && err != nil && flags&unix.O_CREAT != 0 && !s.devFiles && strings.HasPrefix(file, filepath.Join(s.tree.Dir(), "dev")+"/"):
		return failure(unix.EACCES) // a device's name with a typing error
	case !isNode || flags&unix.O_PATH != 0:
		return s.openPlain(file, flags, mode)
	case flags&unix.O_DIRECTORY != 0:
		return failure(unix.ENOTDIR)
	case flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return failure(unix.EEXIST)
	case node.Char:
		return s.openControl(node, flags)
	}
	fd, err := s.openDevice(node.Number, int(flags))
	if err != nil {
		return ended(err)
	}
	return inject(fd, flags)
}

func (s *session) openPlain(file string, flags, mode uint64) outcome {
	if err := s.openParam(file, flags); err != nil {
		return ended(err)
	}
	fd, err := unix.Open(file, int(flags)|unix.O_CLOEXEC|unix.O_NOCTTY, uint32(mode)&0o7777)
	if err != nil {
		return ended(err)
	}
	return inject(fd, flags)
}

func (s *session) openControl(n devfs.Node, flags uint64) outcome {
	if n.Number != controlNode.Number {
		return failure(unix.ENXIO)
	}
	fd, err := s.controls.open()
	if err != nil {
		return ended(err)
	}
	return inject(fd, flags)
}

// openDevice opens the file of a device, and claims the device for an exclusive open.
func (s *session) openDevice(n blk.Number, flags int) (fd int, err error) {
	mode := flags&^(unix.O_EXCL|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW) | unix.O_CLOEXEC
	if d := s.disks.number(n); d != nil {
		fd, err = unix.Open(d.path, mode, 0)
	} else {
		fd, err = s.openMapped(n, mode)
	}
	if err != nil {
		return -1, err
	}
	if err = s.opened.remember(fd, n); err == nil && flags&unix.O_EXCL != 0 {
		err = s.claim(fd, n, flags)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// openMapped opens the daemon's file of a mapped device. A device without a live table
// has no file yet; programs see an empty device.
func (s *session) openMapped(n blk.Number, mode int) (int, error) {
	d, ok := s.devices.number(n)
	switch {
	case !ok:
		return -1, unix.ENXIO
	case d.ReadOnly && mode&unix.O_ACCMODE != unix.O_RDONLY:
		return -1, unix.EROFS
	}
	fd, err := unix.Open(s.mappedFile(n), mode, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO) {
		return openEmpty()
	}
	return fd, err
}

// openEmpty opens a file that is empty and stays so.
func openEmpty() (int, error) {
	fd, err := unix.MemfdCreate("udm", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// opened are the files that callers got, and the devices that they mean.
type opened struct {
	mu      sync.Mutex
	numbers map[identity]blk.Number // guarded by mu
}

func (o *opened) remember(fd int, n blk.Number) error {
	id, err := identifyFD(fd)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.numbers[id] = n
	return nil
}

// identifyFD is identify for a descriptor of this process.
func identifyFD(fd int) (identity, error) {
	var x unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &x)
	return identity{unix.Mkdev(x.Dev_major, x.Dev_minor), x.Ino}, err
}

func (o *opened) find(id identity) (blk.Number, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, ok := o.numbers[id]
	return n, ok
}
