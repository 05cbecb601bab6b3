//go:build !linux

package server

import (
	"syscall"

	"udm/dm"
	"udm/export"
)

func mountFiles(export.Exports, string) (fileServer, error) {
	return nil, dm.Errorf(syscall.ENOTSUP, "mounting devices as files needs Linux")
}
