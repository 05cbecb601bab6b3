package volume

import (
	"bytes"
	"encoding/binary"
	"syscall"
)

// format is what a file holds that is no raw disk, by the bytes at a place of its
// beginning.
type format struct {
	name  string
	at    int
	magic string
	udm   bool // udm's own: of no use as an image, however it is converted
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

// readable says how tables read a file of the format without converting it, if they can.
func (f format) readable(path string) string {
	if f.name != "qcow2" {
		return ""
	}
	return ", or name it qcow2:" + path + " in a table"
}

// raw refuses a file as an image that is not a raw disk. head is its beginning.
func raw(path string, head []byte) error {
	for _, f := range formats {
		if len(head) < f.at+len(f.magic) || !bytes.HasPrefix(head[f.at:], []byte(f.magic)) {
			continue
		}
		if f.udm {
			return refuse(syscall.EINVAL, "%s is no disk but the %s; name the image that it belongs to", path, f.name)
		}
		return refuse(syscall.EINVAL, "%s is a %s file, not a raw disk; convert it first: qemu-img convert -O raw %s IMAGE%s", path, f.name, path, f.readable(path))
	}
	return nil
}

// storeMagic is how a store of a snapshot begins.
const storeMagic = "SnAp"

// emptyOr refuses a file that is neither empty nor begins as it must, so that
// nobody's data is taken for a store.
func emptyOr(path, magic string, head []byte) error {
	switch {
	case bytes.HasPrefix(head, []byte(magic)):
		return nil
	case len(head) >= 512 && binary.LittleEndian.Uint16(head[510:]) == 0xaa55:
		return refuse(syscall.EINVAL, "%s has a partition table, it is no store; name another file", path)
	case len(bytes.Trim(head, "\x00")) > 0:
		return refuse(syscall.EINVAL, "%s holds other data, it is no store; name another file", path)
	}
	return nil
}
