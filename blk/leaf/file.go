package leaf

import (
	"udm/blk"
	"udm/blk/filedev"
	"udm/env"
)

// fileSource opens a file or block device. Each mode has a device of its own,
// so that nobody is locked out of a file that is only read.
func fileSource(path string) source {
	return source{open: func(_ env.Env, write bool) (blk.Device, error) {
		return filedev.Open(path, filedev.Options{ReadOnly: !write})
	}}
}
