package leaf

import (
	"udm/blk"
	"udm/blk/filedev"
	"udm/env"
)

// parsePath is a file or block device. Each mode has a device of its own, so that
// nobody is locked out of a file that is only read.
func parsePath(path, _ string) (source, error) {
	id, number, err := identify(path)
	if err != nil {
		return source{}, openError(path, err)
	}
	return source{id: id, number: number, open: func(_ env.Env, write bool) (blk.Device, error) {
		return filedev.Open(path, filedev.Options{ReadOnly: !write})
	}}, nil
}
