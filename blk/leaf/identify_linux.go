package leaf

import (
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"udm/blk"
)

// identify returns the identity of the file or block device at a path, and the number of
// a block device. ENOTBLK: it is neither.
func identify(path string) (identity, blk.Number, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, blk.Number{}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return identity{dev: st.Rdev}, blk.Number{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}, nil
	case unix.S_IFREG:
		return identity{dev: st.Dev, ino: st.Ino}, blk.Number{}, nil
	}
	return identity{}, blk.Number{}, syscall.ENOTBLK
}

// blockPath returns a path of the real block device that has a number, or "".
func blockPath(n blk.Number) string {
	path, err := filepath.EvalSymlinks("/dev/block/" + n.String())
	if err == nil {
		return path
	}
	link, err := os.Readlink("/sys/dev/block/" + n.String())
	if err != nil {
		return ""
	}
	return "/dev/" + filepath.Base(link)
}
