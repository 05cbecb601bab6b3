//go:build linux && (amd64 || arm64)

package run

import (
	"os"
	"path"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/run/devfs"
	"udm/run/notify"
)

// shown returns the absolute path that a call means; "" if it cannot be told.
func (s *session) shown(c *notify.Call, p at) (string, error) {
	text, err := c.String(p.text)
	if err != nil || text == "" {
		return "", err
	}
	return s.absolute(c, p.dir, text), nil
}

func (s *session) absolute(c *notify.Call, dir int32, text string) string {
	if path.IsAbs(text) {
		return path.Clean(text)
	}
	base, err := os.Readlink(c.Dir(dir))
	if err != nil || !path.IsAbs(base) {
		return ""
	}
	return path.Join(s.tree.Shown(base), text)
}

// file returns the file of the tree that a call means; for other calls no file, and what
// to answer.
func (s *session) file(c *notify.Call, p at, follow bool) (string, outcome) {
	shown, err := s.shown(c, p)
	if err != nil || shown == "" {
		return "", kernel
	}
	return s.fileOf(shown, follow)
}

func (s *session) fileOf(shown string, follow bool) (string, outcome) {
	s.refresh(shown)
	file, err := s.tree.Resolve(shown, follow)
	switch {
	case err != nil:
		return "", failure(errnoOf(err))
	case file == "":
		return "", kernel
	}
	return file, succeed
}

func (s *session) access(c *notify.Call, p at, mode uint64) outcome {
	file, o := s.file(c, p, true)
	if file == "" {
		return o
	}
	return ended(unix.Access(file, uint32(mode)&^unix.X_OK))
}

func (s *session) readlink(c *notify.Call, p at, buf, size uint64) outcome {
	file, o := s.file(c, p, false)
	if file == "" {
		return o
	}
	to, err := os.Readlink(file)
	if err != nil {
		return ended(err)
	}
	b := []byte(to)[:min(uint64(len(to)), size)]
	if err := c.Write(buf, b); err != nil {
		return ended(err)
	}
	return result(len(b))
}

func (s *session) mknod(c *notify.Call, p at, mode, dev uint64) outcome {
	file, o := s.file(c, p, false)
	if file == "" {
		return o
	}
	n := devfs.Node{Char: mode&unix.S_IFMT == unix.S_IFCHR, Mode: uint32(mode) & 0o777,
		Number: blk.Number{Major: unix.Major(dev), Minor: unix.Minor(dev)}}
	if kind := mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return ended(unix.Mknod(file, uint32(mode), 0))
	}
	var st unix.Stat_t
	if unix.Lstat(file, &st) == nil {
		return failure(unix.EEXIST)
	}
	return ended(s.tree.MakeNode(file, n))
}

func (s *session) mkdir(c *notify.Call, p at, mode uint64) outcome {
	file, o := s.file(c, p, false)
	if file == "" {
		return o
	}
	return ended(unix.Mkdir(file, uint32(mode)|0o700))
}

func (s *session) unlink(c *notify.Call, p at, flags uint64) outcome {
	file, o := s.file(c, p, false)
	if file == "" {
		return o
	}
	return ended(unix.Unlinkat(unix.AT_FDCWD, file, int(flags)))
}

func (s *session) symlink(c *notify.Call, target uint64, p at) outcome {
	file, o := s.file(c, p, false)
	if file == "" {
		return o
	}
	to, err := c.String(target)
	if err != nil {
		return ended(err)
	}
	return ended(unix.Symlink(to, file))
}

// move is rename and link. One of the two paths may be the machine's.
func (s *session) move(c *notify.Call, old, new at, do func(old, new string) error) outcome {
	var files [2]string
	ours := false
	for i, p := range []at{old, new} {
		shown, err := s.shown(c, p)
		if err != nil || shown == "" {
			return kernel
		}
		file, o := s.fileOf(shown, false)
		if o.end == fails {
			return o
		}
		if files[i] = file; file == "" {
			files[i] = shown
		}
		ours = ours || file != ""
	}
	if !ours {
		return kernel
	}
	return ended(do(files[0], files[1]))
}

// change is what does nothing but succeed on files that are there: permissions, owners,
// times.
func (s *session) change(c *notify.Call, p at) outcome {
	if p.text == 0 {
		return kernel
	}
	file, o := s.file(c, p, true)
	if file == "" {
		return o
	}
	var st unix.Stat_t
	return ended(unix.Lstat(file, &st))
}

func (s *session) xattr(c *notify.Call) outcome {
	if o := s.change(c, here(c.Args[0])); o.end != returns {
		return o
	}
	return failure(unix.EOPNOTSUPP)
}
