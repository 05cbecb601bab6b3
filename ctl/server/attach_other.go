//go:build !linux

package server

import (
	"syscall"

	"udm/dm"
)

var errLinux = dm.Errorf(syscall.ENOTSUP, "attaching devices needs Linux")

func (*loopJob) attach() (string, error) { return "", errLinux }
func (*loopJob) refresh() error          { return errLinux }
func (*loopJob) detach() error           { return errLinux }
