//go:build !linux

package server

import (
	"syscall"

	"udm/dm"
)

type loop struct {
	file, tag, prefer string
	readOnly          bool
	block             uint32
}

var errLinux = dm.Errorf(syscall.ENOTSUP, "attaching devices needs Linux")

func (*loop) attach() (string, int, error)          { return "", -1, errLinux }
func refreshLoop(path, tag string, pin int) error   { return errUnused }
func detachLoop(path, tag string, force bool) error { return errUnused }
func unpin(int)                                     {}
