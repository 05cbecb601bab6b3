package main

import (
	"fmt"
	"strconv"
	"strings"

	"udm/blk/leaf"
	"udm/lvm/edit"
)

// lvmSize is a size on the command line as LVM's: a number without a unit is MiB, and a
// sign makes it relative.
type lvmSize struct {
	sign    string // "+", "-" or ""
	sectors uint64 // 0: not given
}

func (f *lvmSize) String() string {
	if f.sectors == 0 {
		return ""
	}
	return f.sign + formatSectors(f.sectors)
}

func (f *lvmSize) Type() string { return "SIZE" }

func (f *lvmSize) Set(s string) (err error) {
	number := strings.TrimLeft(s, "+-")
	f.sign = s[:len(s)-len(number)]
	if len(f.sign) > 1 {
		return fmt.Errorf("%q is not a size", s)
	}
	if strings.Trim(number, "0123456789") == "" {
		number += "M"
	}
	f.sectors, err = leaf.ParseSize(number)
	return err
}

// lvmExtents is a number of extents on the command line, or a percentage.
type lvmExtents struct {
	sign   string
	number uint64 // 0: not given
	of     string // "", "VG" or "FREE": number is a percentage of that
}

func (f *lvmExtents) String() string {
	if f.number == 0 {
		return ""
	}
	return f.sign + strconv.FormatUint(f.number, 10) + f.of
}

func (f *lvmExtents) Type() string { return "EXTENTS" }

func (f *lvmExtents) Set(s string) (err error) {
	number := strings.TrimLeft(s, "+-")
	f.sign = s[:len(s)-len(number)]
	number, f.of, _ = strings.Cut(number, "%")
	if f.number, err = strconv.ParseUint(number, 10, 40); err != nil || f.number == 0 || len(f.sign) > 1 || f.of != "" && f.of != "VG" && f.of != "FREE" {
		return fmt.Errorf("%q is not a number of extents, N%%VG or N%%FREE", s)
	}
	return nil
}

// length is the length of a volume as -L or -l gives it.
type length struct {
	size    lvmSize
	extents lvmExtents
}

func (l *length) given() bool { return l.size.sectors > 0 || l.extents.number > 0 }

// of returns the sign and the number of extents.
func (l *length) of(ed *edit.Edit) (sign string, n uint64) {
	if l.size.sectors > 0 {
		return l.size.sign, extentsOf(ed, l.size.sectors)
	}
	switch l.extents.of {
	case "VG":
		var all uint64
		for _, p := range ed.Group().PVs {
			all += p.Count
		}
		return l.extents.sign, all * l.extents.number / 100
	case "FREE":
		return l.extents.sign, ed.Free() * l.extents.number / 100
	}
	return l.extents.sign, l.extents.number
}

// from returns the new length of a volume that has now extents.
func (l *length) from(ed *edit.Edit, now uint64) (uint64, error) {
	switch sign, n := l.of(ed); {
	case sign == "+":
		return now + n, nil
	case sign == "-" && n >= now:
		return 0, fmt.Errorf("the volume has only %d extents", now)
	case sign == "-":
		return now - n, nil
	default:
		return n, nil
	}
}

// extentsOf rounds sectors up to extents.
func extentsOf(ed *edit.Edit, sectors uint64) uint64 {
	e := ed.Group().ExtentSize
	return (sectors + e - 1) / e
}
