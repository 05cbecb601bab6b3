//go:build !(ceph && cgo)

package rbddev

import "syscall"

func without() error {
	return &Error{"this udm is built without Ceph; build it with librbd-dev and make build-ceph, or serve the image over NBD (qemu-nbd rbd:…, or rbd-nbd) and name that: nbd://…", syscall.EOPNOTSUPP}
}

func find(Options) (Identity, error) { return Identity{}, without() }

func open(Options, Identity, bool) (image, error) { return nil, without() }
