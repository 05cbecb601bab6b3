package leaf

import (
	"udm/blk"
	"udm/blk/filedev"
)

// parsePath returns the disk that is a file or block device. Each mode opens a device of
// its own, so that a file that is only read is not locked against others.
func parsePath(path, _ string) (source, error) {
	id, number, err := identify(path)
	if err != nil {
		return source{}, openError(path, err)
	}
	return source{id: id, number: number, open: func(_ *Opener, write bool) (blk.Device, error) {
		return filedev.Open(path, filedev.Options{ReadOnly: !write})
	}}, nil
}
