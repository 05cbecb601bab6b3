package rbddev

import (
	"fmt"
	"strings"
	"syscall"
)

// Options name an image and how its cluster is reached.
type Options struct {
	Name                   string // for people
	Pool, Namespace, Image string
	Snap                   string // "": the image itself

	Conf string      // the cluster's configuration; "": $CEPH_CONF, else /etc/ceph/ceph.conf
	User string      // without "client."; "": admin
	Set  [][2]string // Ceph's options by name
}

// Identity is what an image is, whatever its name.
type Identity struct {
	Cluster   string // its fsid
	Pool      int64
	Namespace string
	Image     string
	Snap      uint64 // 0: the image itself
}

func (i Identity) String() string {
	return fmt.Sprintf("%s/%d/%s/%s@%d", i.Cluster, i.Pool, i.Namespace, i.Image, i.Snap)
}

// reserved are options that would break what the device promises.
var reserved = map[string]string{
	"key":                          "it would be seen in tables; name the file with keyring=",
	"rbd_cache":                    "the cache stays off, so that a write that has ended is on the OSDs",
	"rbd_disable_zero_copy_writes": "it stays on, so that the data of a write is read once",
}

// Parse parses POOL/[NAMESPACE/]IMAGE[@SNAP][:conf=FILE][:id=USER][:OPTION=VALUE]…, which is
// qemu's syntax without its escapes. Other options are Ceph's.
func Parse(name string) (Options, error) {
	o := Options{Name: "rbd:" + name}
	fail := func(format string, args ...any) (Options, error) {
		return Options{}, &Error{fmt.Sprintf(format, args...), syscall.EINVAL}
	}
	words := strings.Split(name, ":")
	image, snap, at := strings.Cut(words[0], "@")
	parts := strings.Split(image, "/")
	if len(parts) == 3 {
		o.Namespace, parts = parts[1], []string{parts[0], parts[2]}
		if o.Namespace == "" {
			return fail("the namespace is empty")
		}
	}
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" || at && snap == "" {
		return fail("it is rbd:POOL/IMAGE, rbd:POOL/IMAGE@SNAP or rbd:POOL/NAMESPACE/IMAGE, then :conf=FILE and :id=USER if needed")
	}
	o.Pool, o.Image, o.Snap = parts[0], parts[1], snap
	for _, word := range words[1:] {
		key, value, ok := strings.Cut(word, "=")
		switch {
		case !ok || key == "" || value == "":
			return fail("%q is not OPTION=VALUE; a value with a colon belongs into the file of conf=", word)
		case key == "conf":
			o.Conf = value
		case key == "id":
			o.User = value
		case reserved[key] != "":
			return fail("%s cannot be set: %s", key, reserved[key])
		default:
			o.Set = append(o.Set, [2]string{key, value})
		}
	}
	return o, nil
}

// Error is why an image cannot be opened.
type Error struct {
	Text  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Text }

// Unwrap returns the errno.
func (e *Error) Unwrap() error { return e.Errno }
