package volume

import (
	"bytes"
	"encoding/binary"
	"syscall"
)

// format is a file format other than a raw disk image, recognized by bytes at an
// offset.
type format struct {
	name  string
	at    int
	magic string
	udm   bool // udm's own: no conversion makes it an image
}

var formats = []format{
	{"qcow2", 0, "QFI\xfb", false},
	{"QED", 0, "QED\x00", false},
	{"VMDK", 0, "KDMV", false},
	{"VMDK", 0, "COWD", false},
	{"VMDK", 0, "# Disk DescriptorFile", false},
	{"VDI", 64, "\x7f\x10\xda\xbe", false},
	{"VHDX", 0, "vhdxfile", false},
	{"VHD", 0, "conectix", false},
	{"snapshot store", 0, "SnAp", true},
	{"metadata of a thin pool", 32, "\x4a\x99\x9b\x01\x00\x00\x00\x00", true},
}

// readable returns a hint how a table can use a file of the format without
// conversion, or "".
func (f format) readable(path string) string {
	if f.name != "qcow2" {
		return ""
	}
	return ", or name it qcow2:" + path + " in a table"
}

// raw refuses a file that is not a raw disk image. head is its start.
func raw(path string, head []byte) error {
	for _, f := range formats {
		if len(head) < f.at+len(f.magic) || !bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			continue
		}
		if f.udm {
			return refuse(syscall.EINVAL, "%s is not a disk image but the %s; give the image that it belongs to", path, f.name)
		}
		return refuse(syscall.EINVAL, "%s is a %s file, not a raw disk; convert it first: qemu-img convert -O raw %s IMAGE%s", path, f.name, path, f.readable(path))
	}
	return nil
}

// storeMagic is the first bytes of a snapshot's store.
const storeMagic = "SnAp"

// emptyOr refuses a file that is neither empty nor starts with magic, so that other
// data is not mistaken for a store.
func emptyOr(path, magic string, head []byte) error {
	switch {
	case bytes.HasPrefix(head, []byte(magic)):
		return nil
	case len(head) >= 512 && binary.LittleEndian.Uint16(head[510:]) == 0xaa55:
		return refuse(syscall.EINVAL, "%s has a partition table and is not a store; give another file", path)
	case len(bytes.Trim(head, "\x00")) > 0:
		return refuse(syscall.EINVAL, "%s holds other data and is not a store; give another file", path)
	}
	return nil
}
