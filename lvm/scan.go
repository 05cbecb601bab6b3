package lvm

import (
	"errors"
	"fmt"

	"udm/blk"
	"udm/env"
)

// Disk is a device to scan, and its name in tables and errors.
type Disk struct {
	Name   string
	Device blk.Device
}

// Found is the result of scanning a disk.
type Found struct {
	Disk
	Label *Label // nil: the disk is not a physical volume, or Err says why that is unknown
	Areas []*Area
	Err   error // a *DiskError: the label is damaged
	// Group is the volume group of the disk; nil: none, or unknown.
	Group *Assembled
}

// Result is the result of a scan.
type Result struct {
	Disks  []*Found
	Groups []*Assembled // by name, then by UUID
}

// Scan reads the labels and metadata of disks and assembles the groups. Scan itself
// does not fail: errors are in the disks and groups.
func Scan(e env.Env, disks []Disk) *Result {
	r := &Result{}
	for _, d := range disks {
		r.Disks = append(r.Disks, readDisk(e, d))
	}
	r.Groups = assemble(r.Disks)
	return r
}

// Labelled reports whether a disk has the label of a physical volume, possibly a
// damaged one.
func (d Disk) Labelled(e env.Env) bool {
	l, err := readLabel(e, d)
	return l != nil || err != nil
}

func readDisk(e env.Env, d Disk) *Found {
	f := &Found{Disk: d}
	if f.Label, f.Err = readLabel(e, d); f.Label == nil {
		return f
	}
	for i, r := range f.Label.Metadata {
		a := readArea(e, d, r)
		for _, other := range f.Label.Metadata[:i] {
			if a.Err == nil && r.Offset < other.Offset+other.Size && other.Offset < r.Offset+r.Size {
				a.Text, a.Err = nil, &DiskError{d.Name, r.Offset, "metadata area", errors.New("it overlaps another one")}
			}
		}
		f.Areas = append(f.Areas, a)
	}
	return f
}

// problems returns the problems of a disk by itself.
func (f *Found) problems() (list []string) {
	if f.Err != nil {
		list = append(list, f.Err.Error())
	}
	for _, a := range f.Areas {
		if a.Err != nil {
			list = append(list, a.Err.Error())
		}
	}
	if f.Label != nil && f.Label.Size > f.sectors()*blk.SectorSize {
		list = append(list, fmt.Sprintf("%s: it has %d bytes, and its label says %d", f.Name, f.sectors()*blk.SectorSize, f.Label.Size))
	}
	return list
}

func (f *Found) sectors() uint64 { return f.Device.Limits().Size }
