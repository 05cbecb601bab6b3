package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"udm/ctl"
	"udm/dm"
)

const loopControl = "/dev/loop-control"

func (j *kernelJob) attach() (string, error) {
	flags := unix.O_RDWR
	if j.ReadOnly {
		flags = unix.O_RDONLY
	}
	backing, err := unix.Open(j.File, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: j.File, Err: err}
	}
	defer unix.Close(backing)
	return j.configure(backing)
}

// configure finds a free loop device and attaches the file to it.
func (j *kernelJob) configure(backing int) (string, error) {
	c := unix.LoopConfig{Fd: uint32(backing), Size: j.Block}
	c.Info.Flags = unix.LO_FLAGS_DIRECT_IO
	if j.ReadOnly {
		c.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	copy(c.Info.File_name[:len(c.Info.File_name)-1], j.File)
	if j.Path != "" && loopConfigure(j.Path, &c) == nil {
		return j.Path, nil
	}
	for {
		path, err := freeLoop()
		if err != nil {
			return "", err
		}
		// Another program may have taken it in between.
		if err := loopConfigure(path, &c); !errors.Is(err, syscall.EBUSY) {
			return path, err
		}
	}
}

func freeLoop() (string, error) {
	control, err := unix.Open(loopControl, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", missing(loopControl, err)
	}
	defer unix.Close(control)
	n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return "", missing(loopControl, err)
	}
	return fmt.Sprintf("/dev/loop%d", n), nil
}

func loopConfigure(path string, c *unix.LoopConfig) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return missing(path, err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlLoopConfigure(fd, c); err != nil {
		return missing(path, err)
	}
	return nil
}

// missing says which permission or part of the kernel is missing.
func missing(path string, err error) error {
	who := fmt.Sprintf("the daemon, which runs as user %d,", os.Geteuid())
	switch {
	case errors.Is(err, fs.ErrPermission):
		return dm.Errorf(errnoIn(err), "%s may not use %s; run it as root or in the group disk, or use udm mount", who, path)
	case path == loopControl && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO) || errors.Is(err, syscall.ENODEV)):
		return dm.Errorf(syscall.ENODEV, "the kernel has no loop driver (%s: %v); try modprobe loop", path, err)
	case errors.Is(err, fs.ErrNotExist):
		return dm.Errorf(syscall.ENODEV, "%s is missing; the daemon needs the machine's /dev", path)
	case errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTTY):
		return dm.Errorf(errnoIn(err), "%s cannot be configured (%v); attach needs Linux 5.8 or later", path, err)
	}
	return &os.PathError{Op: "configure", Path: path, Err: err}
}

func errnoIn(err error) syscall.Errno {
	var n syscall.Errno
	if errors.As(err, &n) {
		return n
	}
	return syscall.EIO
}

// ours reports whether a block device has the job's file. It asks sysfs, which also
// works after the server of the file has ended.
func (j *kernelJob) ours() bool {
	attribute := "loop/backing_file"
	if j.Driver == ctl.DriverNBD {
		attribute = "backend"
	}
	text, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(j.Path), attribute))
	return err == nil && strings.TrimSuffix(strings.TrimSuffix(string(text), "\n"), " (deleted)") == j.File
}

// open opens a block device, or returns errUnused if it is not ours.
func (j *kernelJob) open(flags int) (int, error) {
	fd, err := unix.Open(j.Path, unix.O_CLOEXEC|flags, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENXIO):
		return -1, errUnused
	case err != nil:
		return -1, &os.PathError{Op: "open", Path: j.Path, Err: err}
	}
	if !j.ours() && !j.loops(fd) {
		unix.Close(fd)
		return -1, errUnused
	}
	return fd, nil
}

// loops reports whether a block device is a loop device on the job's file. Other than ours it
// also knows one that was made in a mount namespace that has gone, with a daemon in a
// container; but it asks the file, and so the daemon.
func (j *kernelJob) loops(fd int) bool {
	if j.Driver != ctl.DriverLoop {
		return false
	}
	info, err := unix.IoctlLoopGetStatus64(fd)
	var st unix.Stat_t
	return err == nil && unix.Stat(j.File, &st) == nil && info.Device == st.Dev && info.Inode == st.Ino
}

// refresh updates the size of a block device from its file.
func (j *kernelJob) refresh() error {
	fd, err := j.open(unix.O_RDWR)
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		fd, err = j.open(unix.O_RDONLY)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := os.Stat(j.File); err != nil { // makes the kernel read the size anew, which the loop driver takes
		return err
	}
	return os.NewSyscallError("LOOP_SET_CAPACITY", unix.IoctlSetInt(fd, unix.LOOP_SET_CAPACITY, 0))
}

// detach writes back the kernel's cache and removes the block device.
func (j *kernelJob) detach() error {
	fd, err := j.open(unix.O_EXCL)
	var busy error
	if errors.Is(err, syscall.EBUSY) {
		busy = dm.Errorf(syscall.EBUSY, "%s is in use; unmount it first", j.Path)
		if !j.Force || j.Stay {
			return busy
		}
		fd, err = j.open(0)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	serr := unix.Fsync(fd)
	if serr != nil && !j.Force {
		return &os.PathError{Op: "fsync", Path: j.Path, Err: serr}
	}
	if j.Stay && j.Driver == ctl.DriverNBD && openElsewhere(j.Path) {
		return syscall.EBUSY
	}
	if err := j.clear(fd); err != nil {
		return &os.PathError{Op: "detach", Path: j.Path, Err: err}
	}
	if j.Stay && stays(fd) {
		return syscall.EBUSY
	}
	return busy
}

// stays takes back that a loop device is removed with its last user, if there is another one
// than this process.
func stays(fd int) bool {
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return false // ENXIO: there is none, and it goes when this process closes it
	}
	info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
	return unix.IoctlLoopSetStatus64(fd, info) == nil
}

func (j *kernelJob) clear(fd int) error {
	if j.Driver == ctl.DriverNBD {
		return j.disconnect()
	}
	return unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
}
