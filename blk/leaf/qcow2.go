package leaf

import (
	"bytes"
	"io"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"udm/blk"
	"udm/blk/qcow2"
	"udm/dm"
)

// parseQcow2 parses the absolute path of an image.
func parseQcow2(name, path string) (source, error) {
	if !filepath.IsAbs(path) {
		return source{}, dm.Errorf(syscall.EINVAL, "%s: the path is not absolute", name)
	}
	id, _, err := identify(path)
	if err != nil {
		return source{}, openError(name, err)
	}
	return source{id: id, open: func(o *Opener, write bool) (blk.Device, error) {
		if write {
			return nil, dm.Errorf(syscall.EACCES, "qcow2 images are read-only; use the image as an origin, or convert it: qemu-img convert -O raw %s FILE", path)
		}
		return qcow2.Open(o.env, path, qcow2.Options{Zstd: unzstd})
	}}, nil
}

// unzstd decompresses the frame at the start of src into dst. Its window limit
// suffices for the largest cluster.
func unzstd(dst, src []byte) error {
	r, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(4<<20))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, dst)
	return err
}
