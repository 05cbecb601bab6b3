package filedev

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/blk"
)

func (f *osFile) ioctl(req uint, arg unsafe.Pointer) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(f.fd), uintptr(req), uintptr(arg)); e != 0 {
		return e
	}
	return nil
}

func (f *osFile) blockSize() (n int64, err error) {
	err = f.ioctl(unix.BLKGETSIZE64, unsafe.Pointer(&n))
	return n, err
}

func (f *osFile) blockDiscard(off, n int64) error {
	if n == 0 {
		return nil
	}
	r := [2]uint64{uint64(off), uint64(n)}
	return f.ioctl(unix.BLKDISCARD, unsafe.Pointer(&r))
}

func (f *osFile) blockGeometry() (geometry, error) {
	var logical, physical, minIO, optIO, ro uint32
	for req, v := range map[uint]*uint32{
		unix.BLKSSZGET: &logical, unix.BLKPBSZGET: &physical, unix.BLKIOMIN: &minIO, unix.BLKIOOPT: &optIO, unix.BLKROGET: &ro,
	} {
		if err := f.ioctl(req, unsafe.Pointer(v)); err != nil {
			return geometry{}, err
		}
	}
	return geometry{
		logical: logical, physical: max(physical, logical), minIO: max(minIO, logical), optIO: optIO,
		maxDiscard:         min(f.queueLimit("discard_max_bytes"), blk.NoLimit*blk.SectorSize),
		discardGranularity: uint32(f.queueLimit("discard_granularity")),
		align:              uint64(logical), readOnly: ro != 0,
	}, nil
}

// queueLimit reads a limit that has no ioctl; 0 if the kernel does not report it.
// A partition has the limits of its disk, one directory up.
func (f *osFile) queueLimit(name string) uint64 {
	var st unix.Stat_t
	if unix.Fstat(f.fd, &st) != nil {
		return 0
	}
	dir := fmt.Sprintf("/sys/dev/block/%d:%d/", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	for _, up := range []string{"", "../"} {
		if text, err := os.ReadFile(dir + up + "queue/" + name); err == nil {
			n, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
			return n
		}
	}
	return 0
}
