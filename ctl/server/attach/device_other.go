//go:build !linux

package server

import (
	"encoding/json"
	"syscall"

	"udm/dm"
)

var errLinux = dm.Errorf(syscall.ENOTSUP, "attaching devices needs Linux")

func (*kernelJob) attach() (string, error)  { return "", errLinux }
func (*kernelJob) connect() (string, error) { return "", errLinux }
func (*kernelJob) hold(*json.Decoder) error { return errLinux }
func (*kernelJob) refresh() error           { return errLinux }
func (*kernelJob) resize() error            { return errLinux }
func (*kernelJob) detach() error            { return errLinux }

// link is an attachment by nbd; there are none.
type link struct{ path string }

func (*link) alive() bool { return false }
func (*link) wait()       {}

func (*files) connect(kernelJob, string) (*link, error) { return nil, errLinux }
