package sim

import (
	"io/fs"
	"path"
	"slices"
	"syscall"

	"udm/blk"
	"udm/blk/checkdev"
	uvolume "udm/volume"
)

// files are the files of volumes: disks with names in a filesys, which keeps what it
// promises of them, too.
type files struct{ *filesys }

// newDisk makes a disk while the power is on.
func (s files) newDisk(f uvolume.File) *disk {
	d := s.w.disk(f.Path, f.Size/blk.SectorSize)
	d.on(s.w.sim)
	if len(f.Text) > 0 {
		p := make([]byte, blk.SectorSize)
		copy(p, f.Text)
		b := &blk.Bio{Op: blk.Write, Flags: blk.FUA, End: func(*blk.Bio) {}}
		b.SetData(p)
		d.perform(b)
		d.perform(&blk.Bio{Op: blk.Flush, End: func(*blk.Bio) {}})
	}
	return d
}

// Make implements [uvolume.Files].
func (s files) Make(list []uvolume.File) error {
	var names []string
	for _, f := range list {
		if err := s.makeDir(path.Dir(f.Path)); err != nil {
			return err
		}
		err := s.grow("make "+f.Path, func() error {
			if s.names[f.Path] != nil {
				return fs.ErrExist
			}
			d := s.newDisk(f)
			if f.Whole && d.host != nil && !d.whole() {
				return syscall.ENOSPC
			}
			s.enter(change{name: f.Path, node: &node{disk: d}})
			return nil
		})
		if err != nil {
			return err
		}
		names = append(names, f.Path)
	}
	return s.sync(names)
}

func (s files) makeDir(dir string) error {
	if s.names[dir] != nil {
		return nil
	}
	if err := s.makeDir(path.Dir(dir)); err != nil {
		return err
	}
	if err := s.Mkdir(dir); err != nil {
		return err
	}
	return s.SyncDir(path.Dir(dir))
}

// sync flushes the directories of names.
func (s files) sync(names []string) error {
	var dirs []string
	for _, name := range names {
		if dir := path.Dir(name); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, dir := range dirs {
		if err := s.SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Link implements [uvolume.Files].
func (s files) Link(list []uvolume.Names) error {
	var names []string
	for _, n := range list {
		err := s.grow("link "+n.To, func() error {
			from, to := s.names[n.From], s.names[n.To]
			switch {
			case from == nil:
				return syscall.ENOENT
			case to != nil && to != from:
				return syscall.EEXIST
			case to == nil:
				s.enter(change{name: n.To, node: from})
			}
			return nil
		})
		if err != nil {
			return err
		}
		names = append(names, n.To)
	}
	return s.sync(names)
}

// Remove implements [uvolume.Files].
func (s files) Remove(names []string) error {
	for _, name := range names {
		err := s.do("remove "+name, func() error {
			if s.names[name] != nil {
				s.enter(change{gone: name})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.sync(names)
}

// Resize implements [uvolume.Files].
func (s files) Resize(name string, size uint64, _ bool) error {
	return s.do("resize "+name, func() error {
		n := s.names[name]
		if n == nil {
			return syscall.ENOENT
		}
		n.disk.mem.Resize(size / blk.SectorSize)
		return nil
	})
}

// Same implements [uvolume.Files].
func (s files) Same(a, b string) bool { return s.names[a] != nil && s.names[a] == s.names[b] }

// Stat implements [uvolume.Files].
func (s files) Stat(name string) (uvolume.Stat, error) {
	n := s.names[name]
	if n == nil || n.disk == nil {
		return uvolume.Stat{}, syscall.ENOENT
	}
	return uvolume.Stat{Size: n.disk.Limits().Size * blk.SectorSize, ModTime: 1}, nil
}

// List implements [uvolume.Files].
func (s files) List(dir string) (names []string, err error) {
	for name := range s.names {
		if path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Open implements [uvolume.Files].
func (s files) Open(name string, _ bool) (blk.Device, error) {
	n := s.names[name]
	if n == nil || n.disk == nil {
		return nil, syscall.ENOENT
	}
	return checkdev.New(n.disk, checkdev.Options{}), nil
}

// ReadTail implements [uvolume.Files]: all files are whole sectors.
func (s files) ReadTail(string) ([]byte, error) { return nil, nil }
