//go:build !linux

package vhostuser

import (
	"net"
	"syscall"

	"udm/dm"
)

func listenUnix(string, uint32) (*net.UnixListener, error) {
	return nil, dm.Errorf(syscall.ENOTSUP, "exporting devices to virtual machines needs Linux")
}
