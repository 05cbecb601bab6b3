package lvm

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
)

// The layout of new disks, in bytes: that of LVM.
const (
	newArea = 4096    // start of the metadata area
	newData = 1 << 20 // start of the data; the area ends there

	// ends is how much of a disk's beginning and end is looked at and cleared.
	ends = 1 << 20
)

// NewUUID draws a UUID.
func NewUUID(e env.Env) UUID {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := make([]byte, uuidLength)
	for i := range b {
		b[i] = letters[e.Uint64()%uint64(len(letters))]
	}
	return UUID(b)
}

// Blank reports whether there are only zeroes in the first and in the last MiB of the
// disk, where all known formats have something.
func (d Disk) Blank(e env.Env) (bool, error) {
	for _, r := range d.ends() {
		p := make([]byte, r.Size)
		if err := readBytes(e, d.Device, p, r.Offset); err != nil {
			return false, &DiskError{d.Name, r.Offset, "disk", err}
		}
		if !zeroes(p) {
			return false, nil
		}
	}
	return true, nil
}

// ends returns the beginning and the end of the disk.
func (d Disk) ends() []Range {
	size := d.Device.Limits().Size * blk.SectorSize
	n := min(size, ends)
	return []Range{{0, n}, {size - n, n}}
}

// NewPV returns the disk as the physical volume that Initialise makes of it.
func (d Disk) NewPV(e env.Env) (*Found, error) {
	size := d.Device.Limits().Size * blk.SectorSize
	if size < 2*newData {
		return nil, fmt.Errorf("%s has %d bytes, and a physical volume has at least %d", d.Name, size, 2*newData)
	}
	r := Range{newArea, newData - newArea}
	return &Found{Disk: d, Areas: []*Area{{Range: r}}, Label: &Label{
		Sector: 1, ID: NewUUID(e), Size: size, Data: []Range{{newData, 0}}, Metadata: []Range{r}, Version: labelVersion,
	}}, nil
}

// Initialise makes the disk of NewPV a physical volume without a group. What was on it
// is lost. The label comes last, and says that the disk is in no group.
func (f *Found) Initialise(e env.Env) error {
	err := f.clear(e)
	for _, a := range f.Areas {
		if err == nil {
			err = writeSync(e, f, encodeHeader(a.Range, slot{}, slot{}), a.Offset)
		}
	}
	if err != nil {
		return err
	}
	return writeLabel(e, f)
}

// clear zeroes both ends of the disk unless they are blank.
func (d Disk) clear(e env.Env) error {
	blank, err := d.Blank(e)
	if blank || err != nil {
		return err
	}
	for _, r := range d.ends() {
		err = errors.Join(err, writeSync(e, &Found{Disk: d}, make([]byte, r.Size), r.Offset))
	}
	return err
}
