//go:build !linux

package server

import (
	"syscall"

	"udm/dm"
)

type loop struct {
	file, prefer string
	readOnly     bool
	block        uint32
}

var errLinux = dm.Errorf(syscall.ENOTSUP, "attaching devices needs Linux")

func (*loop) attach() (string, int, error)           { return "", -1, errLinux }
func refreshLoop(path, file string, pin int) error   { return errUnused }
func detachLoop(path, file string, force bool) error { return errUnused }
func unpin(int)                                      {}
