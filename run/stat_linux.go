//go:build linux && (amd64 || arm64)

package run

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/run/devfs"
	"udm/run/notify"
)

// putter writes a description to the caller.
type putter func(c *notify.Call, addr uint64, st *unix.Stat_t) outcome

func putStat(c *notify.Call, addr uint64, st *unix.Stat_t) outcome {
	return ended(c.Write(addr, unsafe.Slice((*byte)(unsafe.Pointer(st)), unsafe.Sizeof(*st))))
}

func putStatx(c *notify.Call, addr uint64, st *unix.Stat_t) outcome {
	x := unix.Statx_t{
		Mask: unix.STATX_BASIC_STATS, Blksize: uint32(st.Blksize), Nlink: uint32(st.Nlink), Uid: st.Uid, Gid: st.Gid,
		Mode: uint16(st.Mode), Ino: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks),
		Rdev_major: unix.Major(st.Rdev), Rdev_minor: unix.Minor(st.Rdev), Dev_major: unix.Major(st.Dev), Dev_minor: unix.Minor(st.Dev),
		Atime: timestamp(st.Atim), Mtime: timestamp(st.Mtim), Ctime: timestamp(st.Ctim),
	}
	return ended(c.Write(addr, unsafe.Slice((*byte)(unsafe.Pointer(&x)), unsafe.Sizeof(x))))
}

func timestamp(t unix.Timespec) unix.StatxTimestamp {
	return unix.StatxTimestamp{Sec: t.Sec, Nsec: uint32(t.Nsec)}
}

// stat is stat, lstat, newfstatat and statx.
func (s *session) stat(c *notify.Call, p at, flags, addr uint64, put putter) outcome {
	if flags&unix.AT_EMPTY_PATH != 0 {
		if text, err := c.String(p.text); p.text == 0 || err == nil && text == "" {
			return s.fstat(c, p.dir, addr, put)
		}
	}
	file, o := s.file(c, p, flags&unix.AT_SYMLINK_NOFOLLOW == 0)
	if file == "" {
		return o
	}
	var st unix.Stat_t
	look := unix.Lstat
	if flags&unix.AT_SYMLINK_NOFOLLOW == 0 {
		look = unix.Stat // links of /sys stay in the tree
	}
	if err := look(file, &st); err != nil {
		return ended(err)
	}
	s.describe(file, &st)
	return put(c, addr, &st)
}

// describe makes st that of the node that a file of the tree is, if it is one.
func (s *session) describe(file string, st *unix.Stat_t) {
	if n, ok := s.tree.Node(file, st); ok {
		n.Stat(st, s.uid)
	} else if s.asRoot {
		st.Uid, st.Gid = 0, 0
	}
}

func (s *session) fstat(c *notify.Call, fd int32, addr uint64, put putter) outcome {
	id, _, err := identify(c.FD(fd))
	if err != nil {
		return kernel
	}
	var st unix.Stat_t
	node, ok := s.nodeOf(c, fd, id)
	switch {
	case ok:
		node.Stat(&st, s.uid)
	case s.asRoot && id.dev == s.treeDev && unix.Stat(c.FD(fd), &st) == nil:
		st.Uid, st.Gid = 0, 0
	default:
		return kernel
	}
	return put(c, addr, &st)
}

// identity tells files apart.
type identity struct{ dev, ino uint64 }

// identify looks at a descriptor of a caller without asking a FUSE server for it.
func identify(path string) (id identity, size uint64, err error) {
	var x unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_INO|unix.STATX_SIZE, &x)
	return identity{unix.Mkdev(x.Dev_major, x.Dev_minor), x.Ino}, x.Size, err
}

// nodeOf returns the node that a caller has open.
func (s *session) nodeOf(c *notify.Call, fd int32, id identity) (devfs.Node, bool) {
	if n, ok := s.opened.find(id); ok {
		return devfs.Node{Number: n, Mode: nodeMode}, true
	}
	if s.controls.has(id) {
		return controlNode, true
	}
	if id.dev != s.treeDev { // else it may be a node opened with O_PATH
		return devfs.Node{}, false
	}
	file, err := os.Readlink(c.FD(fd))
	var st unix.Stat_t
	if err != nil || unix.Lstat(file, &st) != nil {
		return devfs.Node{}, false
	}
	return s.tree.Node(file, &st)
}
