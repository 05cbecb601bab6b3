package sim

import (
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"udm/env/hostfs"
)

// filesys is a file system that loses power. Each operation takes a while and happens as
// a whole at its end.
//
// Names are as durable as POSIX promises: each creation, rename and removal in a directory
// since the last flush of that directory may survive a power cut or not, as a whole. Data
// that was written to a file and not flushed survives up to any byte, and bytes before
// that one may be zeroes.
type filesys struct {
	w       *harness
	names   map[string]*node // the current names, of files and directories
	safe    map[string]*node // the names that survive a power cut
	changes []change         // the difference, in order
	off     bool             // the power is off
	fails   bool             // operations fail from time to time
	watch   func()           // called before each operation and before a power cut
}

// node is a file or a directory.
type node struct {
	dir       bool
	now, safe []byte
	disk      *disk // a file of a volume, which loses power by itself; nil: none
}

// change is a change of names: name gets a node, unless that is nil, and the name gone
// disappears, unless that is "".
type change struct {
	name string
	node *node
	gone string
}

// root is the directory of the daemon's state. The directories above it are durable.
const root = "/var/lib/udm"

func newFilesys(w *harness) *filesys {
	top := map[string]*node{"/var/lib": {dir: true}}
	return &filesys{w: w, names: maps.Clone(top), safe: top}
}

// do carries out f after a while, or fails. An operation that fails may have happened.
func (s *filesys) do(name string, f func() error) error {
	s.w.sleep(time.Duration(s.w.rng.IntN(300)) * time.Microsecond)
	s.watch()
	if s.off {
		return syscall.EIO
	}
	k := s.w.rng.IntN(40)
	if !s.fails || k > 1 {
		return f()
	}
	s.w.note("%s breaks", name)
	if k == 0 {
		_ = f()
	}
	return syscall.EIO
}

// grow is do for what takes space.
func (s *filesys) grow(name string, f func() error) error {
	return s.do(name, func() error {
		if !s.w.host.has(1) {
			return syscall.ENOSPC
		}
		return f()
	})
}

func (s *filesys) enter(c change) {
	s.changes = append(s.changes, c)
	apply(s.names, c)
}

func apply(names map[string]*node, c change) {
	delete(names, c.gone)
	if c.node != nil {
		names[c.name] = c.node
	}
}

// parent finds the directory of a name.
func (s *filesys) parent(name string) error {
	if d := s.names[path.Dir(name)]; d == nil || !d.dir {
		return fs.ErrNotExist
	}
	return nil
}

// Create implements [hostfs.FS].
func (s *filesys) Create(name string) (file hostfs.File, err error) {
	err = s.grow("create "+name, func() error {
		n := s.names[name]
		if err := s.parent(name); err != nil {
			return err
		}
		if n == nil {
			n = &node{}
			s.enter(change{name: name, node: n})
		}
		n.now = nil
		file = &openFile{s, n, name}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Mkdir implements [hostfs.FS].
func (s *filesys) Mkdir(name string) error {
	return s.grow("mkdir "+name, func() error {
		switch err := s.parent(name); {
		case err != nil:
			return err
		case s.names[name] != nil:
			return fs.ErrExist
		}
		s.enter(change{name: name, node: &node{dir: true}})
		return nil
	})
}

// Rename implements [hostfs.FS].
func (s *filesys) Rename(from, to string) error {
	return s.do("rename "+from, func() error {
		n := s.names[from]
		if n == nil {
			return fs.ErrNotExist
		}
		s.enter(change{name: to, node: n, gone: from})
		return nil
	})
}

// Remove implements [hostfs.FS].
func (s *filesys) Remove(name string) error {
	return s.do("remove "+name, func() error {
		if s.names[name] == nil {
			return fs.ErrNotExist
		}
		s.enter(change{gone: name})
		return nil
	})
}

// SyncDir implements [hostfs.FS].
func (s *filesys) SyncDir(dir string) error {
	return s.do("flush "+dir, func() error {
		s.changes = slices.DeleteFunc(s.changes, func(c change) bool {
			in := path.Dir(c.name+c.gone) == dir || c.gone != "" && path.Dir(c.gone) == dir
			if in {
				apply(s.safe, c)
			}
			return in
		})
		return nil
	})
}

// ReadDir implements [hostfs.FS].
func (s *filesys) ReadDir(dir string) (names []string, err error) {
	err = s.do("list "+dir, func() error {
		if d := s.names[dir]; d == nil || !d.dir {
			return fs.ErrNotExist
		}
		for name := range s.names {
			if path.Dir(name) == dir {
				names = append(names, path.Base(name))
			}
		}
		slices.Sort(names)
		return nil
	})
	return names, err
}

// ReadFile implements [hostfs.FS].
func (s *filesys) ReadFile(name string) (p []byte, err error) {
	err = s.do("read "+name, func() error {
		n := s.names[name]
		if n == nil {
			return fs.ErrNotExist
		}
		p = slices.Clone(n.now)
		return nil
	})
	return p, err
}

// openFile is a file that is open for writing.
type openFile struct {
	s    *filesys
	node *node
	name string
}

func (f *openFile) Write(p []byte) (int, error) {
	err := f.s.grow("write "+f.name, func() error {
		f.node.now = append(f.node.now, p...)
		return nil
	})
	return len(p), err
}

func (f *openFile) Sync() error {
	return f.s.do("flush "+f.name, func() error {
		f.node.safe = slices.Clone(f.node.now)
		return nil
	})
}

func (f *openFile) Close() error { return nil }

// cut turns the power off. If only the process was killed, everything survives.
func (s *filesys) cut(killed bool, r *rand.Rand) {
	s.watch()
	s.off = true
	if killed {
		return
	}
	for _, c := range s.changes {
		if r.IntN(2) == 0 {
			apply(s.safe, c)
		}
	}
	s.changes = nil
	s.names = make(map[string]*node)
	for _, name := range slices.Sorted(maps.Keys(s.safe)) {
		if s.reachable(name) {
			s.names[name] = s.safe[name].remains(r)
		}
	}
	s.safe = maps.Clone(s.names)
}

// reachable reports whether the directories above a name have survived.
func (s *filesys) reachable(name string) bool {
	for dir := path.Dir(name); strings.HasPrefix(dir, "/var/lib"); dir = path.Dir(dir) {
		if s.safe[dir] == nil {
			return false
		}
	}
	return true
}

// remains draws what a power cut leaves of a file.
func (n *node) remains(r *rand.Rand) *node {
	if n.disk != nil {
		return n
	}
	p := n.safe
	if !slices.Equal(n.now, n.safe) && r.IntN(2) == 0 {
		p = slices.Clone(n.now[:r.IntN(len(n.now)+1)])
		if r.IntN(3) == 0 {
			clear(p[:r.IntN(len(p)+1)])
		}
	}
	return &node{dir: n.dir, now: p, safe: p}
}
