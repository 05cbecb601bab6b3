//go:build ceph && cgo

package rbddev

/*
#cgo LDFLAGS: -lrbd -lrados
#include "librbd.h"
#include <stdlib.h>
*/
import "C"

import (
	"fmt"
	"slices"
	"syscall"
	"unsafe"
)

// answerTime is how long opening waits for an answer of the cluster, in seconds.
const answerTime = "30"

// cluster is a connection to a cluster and a pool. Each image has its own, because a client
// that is blocklisted for one image is shut out from all.
type cluster struct {
	rados C.rados_t
	pool  C.rados_ioctx_t
}

// own are the options that this package sets.
var own = [][2]string{
	{"rbd_cache", "false"}, {"rbd_disable_zero_copy_writes", "true"},
	{"client_mount_timeout", answerTime}, {"rados_mon_op_timeout", answerTime}, {"rados_osd_op_timeout", answerTime},
}

// failed is the error for a result of librados or librbd; nil if that is no error.
func failed(r C.int, format string, args ...any) error {
	if r >= 0 {
		return nil
	}
	n := syscall.Errno(-r)
	return &Error{fmt.Sprintf(format, args...) + ": " + n.Error(), n}
}

// absent is failed with a text of its own for what is not there.
func absent(r C.int, text string) error {
	if r == -C.int(syscall.ENOENT) {
		return &Error{text, syscall.ENOENT}
	}
	return failed(r, "the cluster does not open it")
}

// text calls f with the C string of s, or with NULL for "".
func text(s string, f func(*C.char) C.int) C.int {
	if s == "" {
		return f(nil)
	}
	c := C.CString(s)
	defer C.free(unsafe.Pointer(c))
	return f(c)
}

// connect connects to the cluster and the pool. The cluster's answers are waited for until
// answerTime, until patient is called.
func connect(o Options) (_ *cluster, err error) {
	c := &cluster{}
	if err := failed(text(o.User, func(s *C.char) C.int { return C.rados_create(&c.rados, s) }), "librados"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	r := text(o.Conf, func(s *C.char) C.int { return C.rados_conf_read_file(c.rados, s) })
	if o.Conf != "" {
		if err := failed(r, "%s", o.Conf); err != nil {
			return nil, err
		}
	}
	C.rados_conf_parse_env(c.rados, nil)
	for _, set := range slices.Concat(o.Set, own) {
		if err := c.option(set[0], set[1]); err != nil {
			return nil, err
		}
	}
	user := o.User
	if user == "" {
		user = "admin"
	}
	if err := failed(C.rados_connect(c.rados), "the cluster does not let client.%s in (check conf=, id= and the keyring)", user); err != nil {
		return nil, err
	}
	if err := absent(text(o.Pool, func(s *C.char) C.int { return C.rados_ioctx_create(c.rados, s, &c.pool) }), "there is no pool "+o.Pool); err != nil {
		return nil, err
	}
	text(o.Namespace, func(s *C.char) C.int { C.rados_ioctx_set_namespace(c.pool, s); return 0 })
	return c, nil
}

// option sets an option of Ceph.
func (c *cluster) option(key, value string) error {
	r := text(key, func(k *C.char) C.int {
		return text(value, func(v *C.char) C.int { return C.rados_conf_set(c.rados, k, v) })
	})
	if r < 0 {
		return &Error{fmt.Sprintf("%s=%s is no option of Ceph", key, value), syscall.EINVAL}
	}
	return nil
}

// patient makes requests wait as long as the user wants.
func (c *cluster) patient(o Options) error {
	limits := map[string]string{"rados_mon_op_timeout": "0", "rados_osd_op_timeout": "0"}
	for _, set := range o.Set {
		if limits[set[0]] != "" {
			limits[set[0]] = set[1]
		}
	}
	for key, value := range limits {
		if err := c.option(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) close() {
	if c.pool != nil {
		C.rados_ioctx_destroy(c.pool)
	}
	C.rados_shutdown(c.rados)
}

// found is the identity of the image with an id.
func (c *cluster) found(o Options, img C.rbd_image_t) (id Identity, err error) {
	var fsid, name [128]C.char
	id.Pool, id.Namespace = int64(C.rados_ioctx_get_id(c.pool)), o.Namespace
	if err := failed(C.rados_cluster_fsid(c.rados, &fsid[0], C.size_t(len(fsid))), "the cluster's id"); err != nil {
		return id, err
	}
	if err := failed(C.rbd_get_id(img, &name[0], C.size_t(len(name))), "the image's id; images of format 1 have none, convert it: rbd migration"); err != nil {
		return id, err
	}
	id.Cluster, id.Image = C.GoString(&fsid[0]), C.GoString(&name[0])
	if o.Snap != "" {
		var n C.uint64_t
		r := text(o.Snap, func(s *C.char) C.int { return C.rbd_snap_get_id(img, s, &n) })
		if err := absent(r, fmt.Sprintf("image %s has no snapshot %s", o.Image, o.Snap)); err != nil {
			return id, err
		}
		id.Snap = uint64(n)
	}
	return id, nil
}

func find(o Options) (id Identity, err error) {
	c, err := connect(o)
	if err != nil {
		return id, err
	}
	defer c.close()
	var img C.rbd_image_t
	r := text(o.Image, func(s *C.char) C.int { return C.rbd_open_read_only(c.pool, s, &img, nil) })
	if err := absent(r, fmt.Sprintf("there is no image %s in pool %s", o.Image, o.Pool)); err != nil {
		return id, err
	}
	defer C.rbd_close(img)
	return c.found(o, img)
}
