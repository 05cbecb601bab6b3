//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// vacate prepares dir for mounting. It removes mounts of dead servers; a live
// FUSE mount is an error.
func vacate(dir string) error {
	for {
		dev, live, err := identify(dir)
		if errors.Is(err, syscall.ENOTCONN) {
			if err := unmount(dir, syscall.MNT_DETACH); err != nil {
				return fmt.Errorf("the dead mount at %s cannot be removed: %w", dir, err)
			}
			continue
		}
		if err != nil {
			return err
		}
		if above, _, err := identify(filepath.Dir(dir)); err == nil && above != dev && live {
			return fmt.Errorf("%s is already a FUSE mount; unmount it first: %w", dir, syscall.EBUSY)
		}
		return nil
	}
}

// identify returns the device number of the file system at dir and whether it is
// a FUSE file system.
func identify(dir string) (dev uint64, isFUSE bool, err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return 0, false, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	var sfs unix.Statfs_t
	if err := unix.Statfs(dir, &sfs); err != nil {
		return 0, false, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return st.Dev, sfs.Type == unix.FUSE_SUPER_MAGIC, nil
}

// unmount needs the right to unmount, or fusermount3, which has it.
func unmount(dir string, flags int) error {
	err := unix.Unmount(dir, flags)
	if !errors.Is(err, syscall.EPERM) {
		return err
	}
	args := []string{"-u", dir}
	if flags&unix.MNT_DETACH != 0 {
		args = []string{"-u", "-z", dir}
	}
	out, err := exec.Command(fusermount(), args...).CombinedOutput()
	switch {
	case err == nil:
		return nil
	case strings.Contains(strings.ToLower(string(out)), "busy"):
		return syscall.EBUSY
	}
	return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
}

func fusermount() string {
	if path, err := exec.LookPath("fusermount3"); err == nil {
		return path
	}
	return "fusermount"
}

// device is the number of a mounted file system.
type device struct{ major, minor uint32 }

// mountedAt returns the device mounted at dir, the last if there are several. It
// reads the kernel's list of mounts and does not access the file system itself.
func mountedAt(dir string) (d device, err error) {
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return d, err
	}
	err = fmt.Errorf("nothing is mounted at %s: %w", dir, fs.ErrNotExist)
	for line := range strings.Lines(string(list)) {
		f := strings.Fields(line) // mount, parent, major:minor, root, mount point
		if len(f) > 4 && unescape.Replace(f[4]) == dir {
			_, err = fmt.Sscanf(f[2], "%d:%d", &d.major, &d.minor)
		}
	}
	return d, err
}

// unescape reverses the kernel's escaping of paths in its list of mounts.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// abort ends the kernel's connection of a mount, so that its remaining users get
// errors.
func abort(d device) error {
	return os.WriteFile(fmt.Sprintf("/sys/fs/fuse/connections/%d/abort", d.minor), []byte("1"), 0)
}

// mount mounts at dir and returns the server's end, by itself if it may, else by
// fusermount3.
func (o Options) mount(dir string) (fd int, err error) {
	if os.Geteuid() == 0 {
		if fd, err = o.mountDirectly(dir); err == nil {
			return fd, nil
		}
	}
	return o.mountByProgram(dir)
}

const source, fsType = "udm", "fuse.udm"

// options are those that both ways to mount have in common.
func (o Options) options() string {
	s := fmt.Sprintf("max_read=%d", maxRequest)
	if o.AllowOther {
		s += ",allow_other,default_permissions"
	}
	return s
}

func (o Options) mountDirectly(dir string) (int, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	data := fmt.Sprintf("fd=%d,rootmode=%o,user_id=%d,group_id=%d,%s", fd, unix.S_IFDIR, os.Geteuid(), os.Getegid(), o.options())
	if err := unix.Mount(source, dir, fsType, unix.MS_NOSUID|unix.MS_NODEV, data); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// mountByProgram has fusermount3 mount, which sends the server's end on a socket.
func (o Options) mountByProgram(dir string) (int, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socketpair", err)
	}
	defer unix.Close(ends[0])
	theirs := os.NewFile(uintptr(ends[1]), "fusermount")
	cmd := exec.Command(fusermount(), "-o", "fsname="+source+",subtype=udm,"+o.options(), "--", dir)
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), "_FUSE_COMMFD=3"), []*os.File{theirs}
	out, err := cmd.CombinedOutput()
	theirs.Close()
	if err != nil {
		return -1, fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	control := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(ends[0], make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("recvmsg", err)
	}
	list, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(list) != 1 {
		return -1, errors.Join(err, errors.New("fusermount3 sent no descriptor"))
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(err, errors.New("fusermount3 sent no descriptor"))
	}
	return fds[0], nil
}

// refusePolling makes the kernel learn that the files cannot be polled, and, by the close, that
// they need no flush. Otherwise a Go
// program that opens one asks on a thread that the server may lack if it is this program.
func (s *Server) refusePolling() {
	fd, err := unix.Open(filepath.Join(s.dir, ".go-fuse-epoll-hack"), unix.O_RDONLY|unix.O_CLOEXEC, 0) // the library has it
	if err == nil {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		unix.Close(fd)
	}
}

// mountFailed explains which permission or program is missing.
func mountFailed(dir string, err error) error {
	f, ferr := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if ferr == nil {
		f.Close()
	}
	switch {
	case errors.Is(ferr, fs.ErrNotExist):
		return fmt.Errorf("mount %s: the kernel has no FUSE (no /dev/fuse); try modprobe fuse: %w", dir, syscall.ENODEV)
	case errors.Is(ferr, fs.ErrPermission):
		return fmt.Errorf("mount %s: /dev/fuse must be readable and writable for this user: %w", dir, syscall.EACCES)
	}
	if _, perr := exec.LookPath(fusermount()); perr != nil {
		return fmt.Errorf("mount %s: only root may mount without fusermount3; install the package fuse3: %w", dir, syscall.EPERM)
	}
	return fmt.Errorf("mount %s: %w", dir, err)
}
