//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// loop is a loop device over a sparse file in memory.
type loop struct {
	path   string // /dev/loopN
	number string // major:minor
	dev    *os.File
	file   string
}

// newLoop makes a loop device with the given size in bytes and logical block size.
func newLoop(name string, size int64, block int) (*loop, error) {
	file, err := os.CreateTemp("/run", name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		return nil, err
	}
	l, err := freeLoop()
	if err != nil {
		return nil, err
	}
	l.file = file.Name()
	config := unix.LoopConfig{Fd: uint32(file.Fd()), Size: uint32(block)}
	return l, unix.IoctlLoopConfigure(int(l.dev.Fd()), &config)
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
	err := unix.IoctlSetInt(int(l.dev.Fd()), unix.LOOP_CLR_FD, 0)
	return errors.Join(err, l.dev.Close(), os.Remove(l.file))
}
