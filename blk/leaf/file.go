package leaf

import (
	"path/filepath"
	"syscall"

	"udm/blk"
	"udm/blk/filedev"
	"udm/dm"
)

// parsePath returns the disk that is a file or block device. Each mode opens a device of
// its own, so that a file that is only read is not locked against others.
func parsePath(path, _ string) (source, error) {
	id, number, err := identify(path)
	if err != nil {
		return source{}, openError(path, err)
	}
	return source{id: id, number: number, open: openPath(id, path, false)}, nil
}

// parseDirect returns the disk that is the file at a path, opened past the page cache.
func parseDirect(name, path string) (source, error) {
	if !filepath.IsAbs(path) {
		return source{}, dm.Errorf(syscall.EINVAL, "%s: %q is not an absolute path", name, path)
	}
	src, err := resolve(path)
	src.direct, src.open = true, openPath(src.id, path, true)
	return src, err
}

func openPath(id identity, path string, direct bool) func(*Opener, bool) (blk.Device, error) {
	return func(o *Opener, write bool) (blk.Device, error) {
		return filedev.Open(path, filedev.Options{ReadOnly: !write, Direct: direct, File: o.handedFile(id, write)})
	}
}
