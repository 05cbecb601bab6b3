package leaf

import (
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"udm/blk"
)

// identify tells which file or block device a path means. ENOTBLK: neither.
func identify(path string) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return identity{}, err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return identity{kind: block, dev: st.Rdev}, nil
	case unix.S_IFREG:
		return identity{kind: file, dev: st.Dev, ino: st.Ino}, nil
	}
	return identity{}, syscall.ENOTBLK
}

func deviceNumber(dev uint64) blk.Number {
	return blk.Number{Major: unix.Major(dev), Minor: unix.Minor(dev)}
}

// blockPath is a path of the real block device that has a number, "" if none.
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
