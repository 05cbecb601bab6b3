//go:build !linux

package attach

import (
	"syscall"

	"udm/dm"
	"udm/export"
)

func mountFiles(export.Exports, string) (fileServer, error) {
	return nil, dm.Errorf(syscall.ENOTSUP, "mounting devices as files needs Linux")
}
