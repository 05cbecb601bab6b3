//go:build linux && (amd64 || arm64)

package run

import (
	"maps"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"udm/run/blkioctl"
	"udm/run/dmioctl"
	"udm/run/notify"
)

// handler answers a system call.
type handler func(*session, *notify.Call) outcome

// at is a path as a call gives it: a directory and the address of a text.
type at struct {
	dir  int32
	text uint64
}

// here is a path that is relative to the working directory.
func here(text uint64) at { return at{unix.AT_FDCWD, text} }

// from is a path whose directory and text are arguments i and i+1.
func from(c *notify.Call, i int) at { return at{int32(c.Args[i]), c.Args[i+1]} }

// calls are the intercepted calls. Those that only some processors have are in
// oldCalls.
var calls = map[uint32]handler{
	unix.SYS_IOCTL:  (*session).ioctl,
	unix.SYS_OPENAT: func(s *session, c *notify.Call) outcome { return s.open(c, from(c, 0), c.Args[2], c.Args[3]) },
	unix.SYS_OPENAT2: func(s *session, c *notify.Call) outcome {
		var how [16]byte // flags and mode
		if err := c.Read(c.Args[2], how[:]); err != nil {
			return kernel
		}
		return s.open(c, from(c, 0), le.Uint64(how[:]), le.Uint64(how[8:]))
	},
	unix.SYS_FSTAT:      func(s *session, c *notify.Call) outcome { return s.fstat(c, int32(c.Args[0]), c.Args[1], putStat) },
	unix.SYS_NEWFSTATAT: func(s *session, c *notify.Call) outcome { return s.stat(c, from(c, 0), c.Args[3], c.Args[2], putStat) },
	unix.SYS_STATX:      func(s *session, c *notify.Call) outcome { return s.stat(c, from(c, 0), c.Args[2], c.Args[4], putStatx) },

	unix.SYS_FACCESSAT:  func(s *session, c *notify.Call) outcome { return s.access(c, from(c, 0), c.Args[2]) },
	unix.SYS_FACCESSAT2: func(s *session, c *notify.Call) outcome { return s.access(c, from(c, 0), c.Args[2]) },
	unix.SYS_READLINKAT: func(s *session, c *notify.Call) outcome { return s.readlink(c, from(c, 0), c.Args[2], c.Args[3]) },

	unix.SYS_MKNODAT:   func(s *session, c *notify.Call) outcome { return s.mknod(c, from(c, 0), c.Args[2], c.Args[3]) },
	unix.SYS_MKDIRAT:   func(s *session, c *notify.Call) outcome { return s.mkdir(c, from(c, 0), c.Args[2]) },
	unix.SYS_UNLINKAT:  func(s *session, c *notify.Call) outcome { return s.unlink(c, from(c, 0), c.Args[2]) },
	unix.SYS_SYMLINKAT: func(s *session, c *notify.Call) outcome { return s.symlink(c, c.Args[0], from(c, 1)) },
	unix.SYS_LINKAT:    func(s *session, c *notify.Call) outcome { return s.move(c, from(c, 0), from(c, 2), unix.Link) },
	unix.SYS_RENAMEAT:  func(s *session, c *notify.Call) outcome { return s.move(c, from(c, 0), from(c, 2), unix.Rename) },
	unix.SYS_RENAMEAT2: func(s *session, c *notify.Call) outcome { return s.move(c, from(c, 0), from(c, 2), unix.Rename) },

	unix.SYS_FCHMODAT:  func(s *session, c *notify.Call) outcome { return s.change(c, from(c, 0)) },
	unix.SYS_FCHOWNAT:  func(s *session, c *notify.Call) outcome { return s.change(c, from(c, 0)) },
	unix.SYS_UTIMENSAT: func(s *session, c *notify.Call) outcome { return s.change(c, from(c, 0)) },

	unix.SYS_GETXATTR:   (*session).xattr,
	unix.SYS_LGETXATTR:  (*session).xattr,
	unix.SYS_LISTXATTR:  (*session).xattr,
	unix.SYS_LLISTXATTR: (*session).xattr,
	unix.SYS_SETXATTR:   (*session).xattr,
	unix.SYS_LSETXATTR:  (*session).xattr,

	// lvm locks its memory and raises its priority around each suspend, which ordinary
	// users may not.
	unix.SYS_MLOCK:       accept,
	unix.SYS_MUNLOCK:     accept,
	unix.SYS_MLOCKALL:    accept,
	unix.SYS_MUNLOCKALL:  accept,
	unix.SYS_SETPRIORITY: accept,

	unix.SYS_REQUEST_KEY: (*session).requestKey,

	unix.SYS_EXECVE:   func(s *session, c *notify.Call) outcome { return s.exec(c, c.Args[0]) },
	unix.SYS_EXECVEAT: func(s *session, c *notify.Call) outcome { return s.exec(c, c.Args[1]) },
}

// identities are the calls that tell a program who it is.
var identities = []uint32{unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID}

func accept(*session, *notify.Call) outcome { return succeed }

// handlers returns the calls of a run.
func handlers(asRoot bool) map[uint32]handler {
	all := maps.Clone(calls)
	maps.Copy(all, oldCalls)
	if asRoot {
		for _, nr := range identities {
			all[nr] = accept
		}
	}
	return all
}

// filterOf is the filter that selects these calls.
func filterOf(all map[uint32]handler) notify.Filter {
	numbers := slices.DeleteFunc(slices.Collect(maps.Keys(all)), func(nr uint32) bool { return nr == unix.SYS_IOCTL })
	return notify.Filter{Calls: numbers, Ioctls: []uint8{dmioctl.Type, blkioctl.Type}}
}

func (s *session) ioctl(c *notify.Call) outcome {
	if uint8(c.Args[1]>>8) == dmioctl.Type {
		return s.dm(c)
	}
	return s.block(c)
}

// requestKey hides the kernel's keys of the type logon, which it shows to its own device mapper
// only. So cryptsetup, which asks for one to see whether there are such keys, puts the key of a
// LUKS2 disk into the table, as it does for LUKS1.
func (s *session) requestKey(c *notify.Call) outcome {
	if kind, err := c.String(c.Args[0]); err == nil && kind == "logon" {
		return failure(unix.ENOSYS)
	}
	return kernel
}

// exec hides modprobe: lvm calls it for a target that it does not find, and as root it
// would load the machine's module.
func (s *session) exec(c *notify.Call, text uint64) outcome {
	if p, err := c.String(text); err == nil && path.Base(p) == "modprobe" {
		return failure(unix.ENOENT)
	}
	return kernel
}
