//go:build !linux

package attach

import (
	"encoding/json"
	"syscall"

	"udm/dm"
	"udm/export/nbd"
)

var errLinux = dm.Errorf(syscall.ENOTSUP, "attaching devices needs Linux")

func (*kernelJob) attach() (string, error)  { return "", errLinux }
func (*kernelJob) connect() (string, error) { return "", errLinux }
func (*kernelJob) hold(*json.Decoder) error { return errLinux }
func (*kernelJob) refresh() error           { return errLinux }
func (*kernelJob) resize() error            { return errLinux }
func (*kernelJob) disconnect() error        { return errLinux }
func (*kernelJob) ours() bool               { return false }
func (*kernelJob) detach() error            { return errLinux }
func (*kernelJob) ublk(*jobDone) error      { return errLinux }

// link is an attachment by nbd; there are none.
type link struct{ path string }

func (*link) alive() bool { return false }
func (*link) wait()       {}

func (*Kernel) connect(kernelJob, string) (*link, error)          { return nil, errLinux }
func (*Kernel) takeLink(nbd.Moved, uint32) (*link, func(), error) { return nil, nil, errLinux }

func (*Kernel) byUblk(*dm.Device, string, bool) (string, error) { return "", errLinux }
func (*Kernel) leaveUblk(...uint32)                             {}
func (*Kernel) free(uint32) bool                                { return true }
func (*Kernel) ublkWaits(uint32) bool                           { return false }
func hasMount(string) bool                                      { return false }
