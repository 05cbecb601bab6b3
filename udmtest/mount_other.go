//go:build !linux

package udmtest

import (
	"errors"

	"udm/export"
)

func mountAt(export.Fixed, string) (func() error, error) {
	return nil, errors.New("files of disks are for Linux only; use the disk as io.ReaderAt and io.WriterAt")
}
