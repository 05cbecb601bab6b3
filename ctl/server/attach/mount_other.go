//go:build !linux

package attach

import (
	"encoding/json"
	"os"
	"syscall"

	"udm/dm"
	"udm/export"
)

var errFiles = dm.Errorf(syscall.ENOTSUP, "mounting devices as files needs Linux")

func mountFiles(export.Exports, string) (fileServer, error) { return nil, errFiles }

func takeFiles(export.Exports, json.RawMessage, *os.File, func(string, error)) (fileServer, func(), error) {
	return nil, nil, errFiles
}
