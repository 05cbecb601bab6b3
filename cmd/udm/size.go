package main

import (
	"fmt"
	"strings"

	"udm/blk"
	"udm/blk/leaf"
)

// units are the letters of units, in powers of 1024.
const units = "KMGTPE"

// formatSectors formats a size in the largest unit in which it is at least 1.
func formatSectors(sectors uint64) string { return formatBytes(sectors * blk.SectorSize) }

func formatBytes(n uint64) string {
	bytes := float64(n)
	unit := "B"
	for i := 0; i < len(units) && bytes >= 1024; i++ {
		bytes /= 1024
		unit = units[i : i+1]
	}
	s := strings.TrimSuffix(fmt.Sprintf("%.1f", bytes), ".0")
	return s + unit
}

// sectorsFlag is a size on the command line, in sectors.
type sectorsFlag uint64

func (f *sectorsFlag) String() string {
	if *f == 0 {
		return ""
	}
	return formatSectors(uint64(*f))
}

func (f *sectorsFlag) Set(s string) error {
	n, err := leaf.ParseSize(s)
	*f = sectorsFlag(n)
	return err
}

func (f *sectorsFlag) bytes() uint64 { return uint64(*f) * blk.SectorSize }

func (f *sectorsFlag) Type() string { return "SIZE" }
