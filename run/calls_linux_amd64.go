package run

import (
	"golang.org/x/sys/unix"

	"udm/run/notify"
)

// oldCalls are the calls that newer processors do without.
var oldCalls = map[uint32]handler{
	unix.SYS_OPEN: func(s *session, c *notify.Call) outcome { return s.open(c, here(c.Args[0]), c.Args[1], c.Args[2]) },
	unix.SYS_CREAT: func(s *session, c *notify.Call) outcome {
		return s.open(c, here(c.Args[0]), unix.O_CREAT|unix.O_WRONLY|unix.O_TRUNC, c.Args[1])
	},
	unix.SYS_STAT: func(s *session, c *notify.Call) outcome { return s.stat(c, here(c.Args[0]), 0, c.Args[1], putStat) },
	unix.SYS_LSTAT: func(s *session, c *notify.Call) outcome {
		return s.stat(c, here(c.Args[0]), unix.AT_SYMLINK_NOFOLLOW, c.Args[1], putStat)
	},
	unix.SYS_ACCESS:   func(s *session, c *notify.Call) outcome { return s.access(c, here(c.Args[0]), c.Args[1]) },
	unix.SYS_READLINK: func(s *session, c *notify.Call) outcome { return s.readlink(c, here(c.Args[0]), c.Args[1], c.Args[2]) },
	unix.SYS_MKNOD:    func(s *session, c *notify.Call) outcome { return s.mknod(c, here(c.Args[0]), c.Args[1], c.Args[2]) },
	unix.SYS_MKDIR:    func(s *session, c *notify.Call) outcome { return s.mkdir(c, here(c.Args[0]), c.Args[1]) },
	unix.SYS_UNLINK:   func(s *session, c *notify.Call) outcome { return s.unlink(c, here(c.Args[0]), 0) },
	unix.SYS_RMDIR:    func(s *session, c *notify.Call) outcome { return s.unlink(c, here(c.Args[0]), unix.AT_REMOVEDIR) },
	unix.SYS_SYMLINK:  func(s *session, c *notify.Call) outcome { return s.symlink(c, c.Args[0], here(c.Args[1])) },
	unix.SYS_LINK: func(s *session, c *notify.Call) outcome {
		return s.move(c, here(c.Args[0]), here(c.Args[1]), unix.Link)
	},
	unix.SYS_RENAME: func(s *session, c *notify.Call) outcome {
		return s.move(c, here(c.Args[0]), here(c.Args[1]), unix.Rename)
	},
	unix.SYS_CHMOD:  func(s *session, c *notify.Call) outcome { return s.change(c, here(c.Args[0])) },
	unix.SYS_CHOWN:  func(s *session, c *notify.Call) outcome { return s.change(c, here(c.Args[0])) },
	unix.SYS_LCHOWN: func(s *session, c *notify.Call) outcome { return s.change(c, here(c.Args[0])) },
}
