//go:build !linux

package udmtest

import (
	"errors"

	"udm/export"
)

func mountAt(export.Fixed, string) (func() error, error) {
	return nil, errors.New("Disk.Path requires Linux; use the disk as io.ReaderAt and io.WriterAt")
}
