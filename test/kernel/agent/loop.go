//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// loop is a loop device over a sparse file in memory.
type loop struct {
	path   string // /dev/loopN
	number string // major:minor
	dev    *os.File
	file   *os.File
	keep   string // where the content comes from and goes to; empty for nowhere
}

// newLoop makes a loop device with the given size in bytes and logical block size.
func newLoop(keep, name string, size int64, block int) (*loop, error) {
	file, err := os.CreateTemp("/run", name)
	if err != nil {
		return nil, err
	}
	if err := file.Truncate(size); err != nil {
		return nil, err
	}
	l, err := freeLoop()
	if err != nil {
		return nil, err
	}
	l.file = file
	if keep != "" {
		l.keep = filepath.Join(keep, name)
		if err := l.load(); err != nil {
			return nil, err
		}
	}
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: uint32(block)}
	return l, unix.IoctlLoopConfigure(int(l.dev.Fd()), &config)
}

// load fills the file with what was kept, if there is any.
func (l *loop) load() error {
	kept, err := os.Open(l.keep)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer kept.Close()
	return copySparse(l.file, kept)
}

// store keeps the content of the file.
func (l *loop) store() error {
	st, err := l.file.Stat()
	if err != nil {
		return err
	}
	kept, err := os.Create(l.keep)
	if err != nil {
		return err
	}
	if err := kept.Truncate(st.Size()); err != nil {
		return err
	}
	return errors.Join(copySparse(kept, l.file), kept.Close())
}

// copySparse copies all blocks that are not zero from one file to another that is empty.
func copySparse(to io.WriterAt, from io.ReaderAt) error {
	const block = 64 << 10
	buf, zero := make([]byte, block), make([]byte, block)
	for off := int64(0); ; off += block {
		n, err := from.ReadAt(buf, off)
		if !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := to.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func freeLoop() (*loop, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/dev/loop%d", n)
	dev, err := os.OpenFile(path, os.O_RDWR, 0)
	return &loop{path: path, number: fmt.Sprintf("7:%d", n), dev: dev}, err
}

func (l *loop) remove() error {
	err := errors.Join(l.dev.Sync(), unix.IoctlSetInt(int(l.dev.Fd()), unix.LOOP_CLR_FD, 0), l.dev.Close())
	if l.keep != "" {
		err = errors.Join(err, l.store())
	}
	return errors.Join(err, l.file.Close(), os.Remove(l.file.Name()))
}
