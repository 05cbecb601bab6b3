package archive

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Dir is a store in a folder. Objects are files; each is written beside the others, made
// durable, and then named by link, which fails if the name is taken, or rename.
type Dir struct{ path string }

// tmp is the folder of files that are being written.
const tmp = "tmp"

// OpenDir opens a folder, which exists. What was left half-written a day ago is removed.
func OpenDir(path string) (*Dir, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", path)
	}
	d := &Dir{path}
	old, _ := os.ReadDir(d.file(tmp))
	for _, e := range old {
		if i, err := e.Info(); err == nil && time.Since(i.ModTime()) > 24*time.Hour {
			_ = os.Remove(filepath.Join(d.file(tmp), e.Name()))
		}
	}
	return d, nil
}

func (d *Dir) file(key string) string { return filepath.Join(d.path, filepath.FromSlash(key)) }

// PutNew implements [Store].
func (d *Dir) PutNew(_ context.Context, key string, data []byte) error {
	return d.put(key, data, os.Link)
}

// Put implements [Store].
func (d *Dir) Put(_ context.Context, key string, data []byte) error {
	return d.put(key, data, os.Rename)
}

func (d *Dir) put(key string, data []byte, name func(from, to string) error) error {
	to, from := d.file(key), d.file(tmp+"/"+rand.Text())
	for _, dir := range []string{filepath.Dir(from), filepath.Dir(to)} {
		if err := d.makeDir(dir); err != nil {
			return err
		}
	}
	err := writeFile(from, data)
	if err == nil {
		err = name(from, to)
	}
	if rerr := os.Remove(from); err == nil && !errors.Is(rerr, fs.ErrNotExist) {
		err = rerr
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// makeDir makes a folder durable.
func (d *Dir) makeDir(path string) error {
	if _, err := os.Stat(path); err == nil || path == d.path {
		return err
	}
	if err := d.makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Get implements [Store].
func (d *Dir) Get(_ context.Context, key string, offset, n int64) ([]byte, error) {
	f, err := os.Open(d.file(key))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if n < 0 {
		return io.ReadAll(io.NewSectionReader(f, offset, 1<<62))
	}
	p := make([]byte, n)
	_, err = f.ReadAt(p, offset)
	return p, err
}

// List implements [Store].
func (d *Dir) List(_ context.Context, prefix string, fn func(string, int64) error) error {
	from := d.file(prefix[:strings.LastIndex(prefix, "/")+1])
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // removed meanwhile
		}
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(d.path, path)
		key := filepath.ToSlash(rel)
		if err != nil || !strings.HasPrefix(key, prefix) || strings.HasPrefix(key, tmp+"/") {
			return err
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return fn(key, info.Size())
	})
}

// Delete implements [Store].
func (d *Dir) Delete(_ context.Context, key string) error {
	err := os.Remove(d.file(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(d.file(key)))
}
