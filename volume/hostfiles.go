package volume

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"udm/blk"
	"udm/blk/filedev"
	"udm/env/hostfs"
)

// HostFiles are the files of the machine. New files are accessible to their owner
// only.
type HostFiles struct{}

// openAtOnce is how many files Make has open at the same time.
const openAtOnce = 64

// Make implements [Files]. It creates missing directories.
func (HostFiles) Make(list []File) error {
	dirs := make(dirSet)
	for _, f := range list {
		dir := filepath.Dir(f.Path)
		if !dirs[dir] {
			if err := makeDir(dir); err != nil {
				return err
			}
			dirs[dir] = true
		}
	}
	for some := range slices.Chunk(list, openAtOnce) {
		if err := makeSome(some); err != nil {
			return err
		}
	}
	return dirs.sync()
}

// makeSome makes some files and syncs them together.
func makeSome(list []File) (err error) {
	var made []hostfs.File
	for _, f := range list {
		var h *os.File
		if h, err = makeFile(f); h != nil {
			made = append(made, h)
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, hostfs.Disk{}.SyncAll(made))
}

func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	return hostfs.MakeDir(hostfs.Disk{}, dir)
}

// makeFile makes a file that is not synced.
func makeFile(f File) (*os.File, error) {
	h, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if len(f.Text) > 0 {
		_, err = h.Write(f.Text)
	}
	return h, errors.Join(err, h.Truncate(int64(f.Size)), takeSpace(h, f.Size, f.Whole))
}

// Link implements [Files].
func (h HostFiles) Link(names []Names) error {
	dirs := make(dirSet)
	for _, n := range names {
		err := os.Link(n.From, n.To)
		if errors.Is(err, fs.ErrExist) && h.Same(n.From, n.To) {
			err = nil
		}
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists; give another file: %w", n.To, syscall.EEXIST)
		}
		if err != nil {
			return err
		}
		dirs[filepath.Dir(n.To)] = true
	}
	return dirs.sync()
}

// Remove implements [Files].
func (HostFiles) Remove(paths []string) error {
	dirs := make(dirSet)
	for _, p := range paths {
		err := os.Remove(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if _, err := os.Stat(filepath.Dir(p)); err == nil {
			dirs[filepath.Dir(p)] = true
		}
	}
	return dirs.sync()
}

// dirSet are directories with changed entries.
type dirSet map[string]bool

func (s dirSet) sync() error {
	for dir := range s {
		if err := (hostfs.Disk{}).SyncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// Resize implements [Files].
func (HostFiles) Resize(path string, size uint64, whole bool) error {
	h, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(h.Truncate(int64(size)), takeSpace(h, size, whole), h.Sync(), h.Close())
}

// Same implements [Files].
func (HostFiles) Same(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// Stat implements [Files]. The size of a block device is that of the disk.
func (HostFiles) Stat(path string) (Stat, error) {
	i, err := os.Stat(path)
	switch {
	case err != nil:
		return Stat{}, err
	case i.Mode().IsRegular():
		return Stat{Size: uint64(i.Size()), Allocated: allocated(i), ModTime: i.ModTime().UnixNano()}, nil
	}
	d, err := filedev.Open(path, filedev.Options{ReadOnly: true})
	if err != nil {
		return Stat{}, err
	}
	size := d.Limits().Size * blk.SectorSize
	return Stat{Size: size, Allocated: size, ModTime: i.ModTime().UnixNano()}, d.Close()
}

// List implements [Files].
func (HostFiles) List(dir string) ([]string, error) {
	names, err := hostfs.Disk{}.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// Open implements [Files].
func (HostFiles) Open(path string, write bool) (blk.Device, error) {
	return filedev.Open(path, filedev.Options{ReadOnly: !write})
}

// ReadTail implements [Files].
func (HostFiles) ReadTail(path string) ([]byte, error) {
	h, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	i, err := h.Stat()
	if err != nil {
		return nil, err
	}
	tail := i.Size() % blk.SectorSize
	return io.ReadAll(io.NewSectionReader(h, i.Size()-tail, tail))
}
