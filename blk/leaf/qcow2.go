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

// parseQcow2 is an image, by its absolute path.
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
			return nil, dm.Errorf(syscall.EACCES, "images of qcow2 are read-only; use it as an origin, or convert it: qemu-img convert -O raw %s FILE", path)
		}
		return qcow2.Open(o.env, path, qcow2.Options{Zstd: unzstd})
	}}, nil
}

// unzstd fills dst from the frame at the beginning of src. The window of what it
// takes is that of the largest cluster, or a little more.
func unzstd(dst, src []byte) error {
	r, err := zstd.NewReader(bytes.NewReader(src), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(4<<20))
	if err != nil {
		return err
	}
	defer r.Close()
	_, err = io.ReadFull(r, dst)
	return err
}
