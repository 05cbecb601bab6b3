//go:build linux

package fuse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// keepFromChildren sets close-on-exec on the server's side of all mounts. A child
// process that inherited it would keep the kernel waiting for answers after this
// process has exited. The FUSE library does not set it when it mounts by itself.
func keepFromChildren() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range fds {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return err
		}
		if path, _ := os.Readlink("/proc/self/fd/" + e.Name()); path == "/dev/fuse" {
			unix.CloseOnExec(fd)
		}
	}
	return nil
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
