//go:build !linux

package filedev

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"

	"udm/blk"
)

// osFile uses only what every system has: positioned reads and writes, and sync.
type osFile struct{ f *os.File }

func openFile(path string, o Options) (file, geometry, error) {
	g := geometry{logical: blk.SectorSize, physical: blk.SectorSize, minIO: 4096}
	if o.Direct || o.File != nil {
		return nil, g, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("direct I/O or an open file: %w", errors.ErrUnsupported)}
	}
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, g, err
	}
	if st, serr := f.Stat(); serr != nil {
		err = serr
	} else if !st.Mode().IsRegular() {
		err = errors.New("not a regular file")
	} else if !o.ReadOnly {
		err = lock(f)
	}
	if err != nil {
		f.Close()
		return nil, g, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return &osFile{f}, g, nil
}

func (f *osFile) readv(bufs [][]byte, off int64, m mode) (int, error) {
	if m == try {
		return 0, errors.ErrUnsupported
	}
	n, err := f.f.ReadAt(bufs[0], off)
	if n > 0 || err == io.EOF {
		return n, nil
	}
	return 0, err
}

func (f *osFile) writev(bufs [][]byte, off int64, m mode) (int, error) {
	if m != plain {
		return 0, errors.ErrUnsupported
	}
	n, err := f.f.WriteAt(bufs[0], off)
	if n > 0 {
		return n, nil
	}
	return 0, err
}

func (f *osFile) sync() error                   { return f.f.Sync() }
func (f *osFile) discard(int64, int64) error    { return blk.NotSupported }
func (f *osFile) zero(int64, int64, bool) error { return errors.ErrUnsupported }
func (f *osFile) hand() (*os.File, error)       { return nil, errors.ErrUnsupported }
func (f *osFile) close() error                  { return f.f.Close() }

func (f *osFile) size() (int64, error) {
	st, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f *osFile) space() (taken, free, all uint64, err error) {
	return 0, 0, 0, errors.ErrUnsupported
}

// data reports the whole file as data.
func (f *osFile) data(off int64) (int64, int64, error) {
	return off, math.MaxInt64 - blk.SectorSize, nil
}

// create makes a file of size bytes without data.
func create(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Truncate(size)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
