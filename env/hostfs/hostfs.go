// Package hostfs is the host file system in which a daemon keeps its state. It is
// an interface, so that a test can simulate a power cut.
//
// A power cut may lose everything that is not synced: the content of a file until
// its Sync, and the creation, renaming or removal of a name until SyncDir of its
// directory. [Replace] replaces a file atomically.
package hostfs

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// FS is a file system: [Disk], or one that loses power in a test.
type FS interface {
	ReadDir(dir string) (names []string, err error) // ascending
	ReadFile(path string) ([]byte, error)
	Create(path string) (File, error) // an empty file; replaces an existing one
	Rename(from, to string) error     // replaces an existing file
	Remove(path string) error
	Mkdir(dir string) error
	SyncDir(dir string) error
}

// File is a file open for writing.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// Disk is the file system of the machine. Only the owner can access the
// directories and files that it makes.
type Disk struct{}

func (Disk) ReadFile(path string) ([]byte, error) { return os.ReadFile(path) }
func (Disk) Rename(from, to string) error         { return os.Rename(from, to) }
func (Disk) Remove(path string) error             { return os.Remove(path) }
func (Disk) Mkdir(dir string) error               { return os.Mkdir(dir, 0o700) }

// Create implements [FS].
func (Disk) Create(path string) (File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

// ReadDir implements [FS].
func (Disk) ReadDir(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, err
}

// SyncDir implements [FS]. It ignores a directory that may not be read, since
// nothing was made in it.
func (Disk) SyncDir(dir string) error {
	if err := syncDir(dir); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// atOnce is how many files SyncAll syncs at the same time.
const atOnce = 16

// SyncAll syncs files side by side and closes them: a file system with a journal writes
// that once for all that are synced at the same time.
func (Disk) SyncAll(files []File) error {
	errs := make([]error, len(files))
	var all sync.WaitGroup
	for first := range min(atOnce, len(files)) {
		all.Go(func() {
			for i := first; i < len(files); i += atOnce {
				errs[i] = errors.Join(files[i].Sync(), files[i].Close())
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// MakeDir makes dir and its missing parents durably. It also syncs existing ones,
// since a daemon may have made them and been killed before they were durable.
func MakeDir(f FS, dir string) error {
	above := filepath.Dir(dir)
	err := f.Mkdir(dir)
	if errors.Is(err, fs.ErrNotExist) && above != dir {
		if err = MakeDir(f, above); err == nil {
			err = f.Mkdir(dir)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return f.SyncDir(above)
}

// Replace durably replaces the content of a file with v as JSON. After an error
// or a crash the file is unchanged or holds v.
func Replace(f FS, path string, v any) error {
	if err := Prepare(f, path, v); err != nil {
		return err
	}
	return Commit(f, path)
}

// Prepare is the first half of Replace: it writes the new content to a file
// beside path, so that Commit needs no more space. path stays unchanged.
func Prepare(f FS, path string, v any) error {
	return PrepareAll(f, []string{path}, []any{v})
}

// Commit is the second half of Replace: it renames the prepared file to path.
func Commit(f FS, path string) error { return CommitAll(f, []string{path}) }

// PrepareAll is Prepare of several files.
func PrepareAll[T any](f FS, paths []string, vs []T) error {
	files := make([]File, 0, len(paths))
	var err error
	for i, v := range vs {
		var file File
		if file, err = create(f, paths[i]+".new", v); file != nil {
			files = append(files, file)
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, syncAll(f, files))
}

// create makes a file that holds v as JSON, and is not synced.
func create(f FS, path string, v any) (File, error) {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return nil, err
	}
	file, err := f.Create(path)
	if err != nil {
		return nil, err
	}
	_, err = file.Write(append(text, '\n'))
	return file, err
}

// CommitAll is Commit of several files of one directory.
func CommitAll(f FS, paths []string) error {
	for _, path := range paths {
		if err := f.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return f.SyncDir(filepath.Dir(paths[0]))
}

// syncAll syncs and closes files.
func syncAll(f FS, files []File) (err error) {
	if s, ok := f.(interface{ SyncAll([]File) error }); ok {
		return s.SyncAll(files)
	}
	for _, file := range files {
		err = errors.Join(err, file.Sync(), file.Close())
	}
	return err
}
