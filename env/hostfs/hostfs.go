// Package hostfs is the file system of the host that a daemon keeps its state
// in, as an interface, so that a test can cut its power.
//
// What is not flushed may get lost in a power cut: the content of a file until
// its Sync, and its name, or that it has none any more, until SyncDir of its
// directory. [Replace] is how a file is changed as a whole.
package hostfs

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// FS is a file system: [Disk], or one that loses power in a test.
type FS interface {
	ReadDir(dir string) (names []string, err error) // ascending
	ReadFile(path string) ([]byte, error)
	Create(path string) (File, error) // an empty file, also in place of another
	Rename(from, to string) error     // also in place of another file
	Remove(path string) error
	Mkdir(dir string) error
	SyncDir(dir string) error
}

// File is a file that is being written.
type File interface {
	io.Writer
	Sync() error
	Close() error
}

// Disk is the file system of the machine. Directories and files are their
// owner's only.
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

// SyncDir implements [FS]. A directory that may not be read is one that nothing
// was made in.
func (Disk) SyncDir(dir string) error {
	if err := syncDir(dir); !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

// MakeDir makes dir, and the directories above it where they are missing; on
// return they are on the disk. One that is there may have been made by a daemon
// that was killed before it was on the disk.
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

// Replace makes a file hold v as JSON. On return it is on the disk, whole; after
// an error, or a crash, the file is as it was or holds v.
func Replace(f FS, path string, v any) error {
	if err := Prepare(f, path, v); err != nil {
		return err
	}
	return Commit(f, path)
}

// Prepare is the first half of Replace: it takes the space that is needed, beside
// the file, which stays as it is.
func Prepare(f FS, path string, v any) error {
	text, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	return write(f, path+".new", append(text, '\n'))
}

// Commit is the second half: what was prepared last becomes the file.
func Commit(f FS, path string) error {
	if err := f.Rename(path+".new", path); err != nil {
		return err
	}
	return f.SyncDir(filepath.Dir(path))
}

func write(fs FS, path string, text []byte) error {
	f, err := fs.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
