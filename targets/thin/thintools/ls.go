package thintools

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// LsFields returns the names of the columns that Ls supports, which are those of
// thin_ls.
func LsFields() []string {
	return []string{"DEV", "MAPPED_BLOCKS", "EXCLUSIVE_BLOCKS", "SHARED_BLOCKS", "MAPPED_SECTORS", "EXCLUSIVE_SECTORS",
		"SHARED_SECTORS", "MAPPED_BYTES", "EXCLUSIVE_BYTES", "SHARED_BYTES", "MAPPED", "EXCLUSIVE", "SHARED",
		"TRANSACTION", "CREATE_TIME", "SNAP_TIME"}
}

// LsOptions control List and Ls.
type LsOptions struct {
	Fields       []string // none: DEV, MAPPED, CREATE_TIME, SNAP_TIME
	NoHeaders    bool
	MetadataSnap Snap
	CacheBytes   int                      // 0: 64 MiB
	Progress     func(done, total uint64) // mapped blocks; may be nil
}

// Listed is one device in a list.
type Listed struct {
	ID uint32
	thinmeta.Details
	Exclusive uint64 // blocks that no other device maps; 0 unless asked for
}

// List returns the devices in order of their ids. With exclusive it reads all
// mappings, twice.
func List(e env.Env, dev blk.Device, exclusive bool, o LsOptions) ([]Listed, *thinmeta.Super, error) {
	s := newSource(e, dev, DumpOptions{MetadataSnap: o.MetadataSnap, CacheBytes: o.CacheBytes, Progress: o.Progress})
	if err := s.open(); err != nil {
		return nil, nil, err
	}
	devs, err := s.details()
	if err != nil {
		return nil, nil, err
	}
	var ls []Listed
	for _, id := range slices.Sorted(maps.Keys(devs)) {
		ls = append(ls, Listed{ID: id, Details: devs[id]})
		s.total += 2 * devs[id].Mapped
	}
	if exclusive {
		err = s.exclusives(ls)
	}
	return ls, &s.super, err
}

// exclusives counts the blocks that only one device maps. A block that one device
// maps twice does not count, as in thin_ls.
func (s *source) exclusives(ls []Listed) error {
	roots, err := s.roots()
	if err != nil {
		return err
	}
	users := pdata.NewRefCounts()
	for pass := range 2 {
		for i := range ls {
			err := s.mappings(ls[i].ID, roots[ls[i].ID], func(_ uint64, v thinmeta.BlockTime) error {
				if pass == 0 {
					users.Add(v.Block, 1)
				} else if users.Get(v.Block) == 1 {
					ls[i].Exclusive++
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Ls writes a table of the devices, like thin_ls.
func Ls(e env.Env, dev blk.Device, w io.Writer, o LsOptions) error {
	fields := o.Fields
	if len(fields) == 0 {
		fields = []string{"DEV", "MAPPED", "CREATE_TIME", "SNAP_TIME"}
	}
	exclusive := false
	for _, f := range fields {
		if !slices.Contains(LsFields(), f) {
			return fmt.Errorf("unknown field %q", f)
		}
		exclusive = exclusive || strings.HasPrefix(f, "EXCLUSIVE") || strings.HasPrefix(f, "SHARED")
	}
	ls, super, err := List(e, dev, exclusive, o)
	if err != nil {
		return err
	}
	var rows [][]string
	if !o.NoHeaders {
		rows = append(rows, fields)
	}
	for _, l := range ls {
		var row []string
		for _, f := range fields {
			row = append(row, l.field(f, uint64(super.DataBlockSize)))
		}
		rows = append(rows, row)
	}
	return grid(w, rows)
}

// field returns the text of a column.
func (l *Listed) field(name string, blockSize uint64) string {
	num := func(n uint64) string { return strconv.FormatUint(n, 10) }
	switch name {
	case "DEV":
		return num(uint64(l.ID))
	case "TRANSACTION":
		return num(l.TransactionID)
	case "CREATE_TIME":
		return num(uint64(l.Created))
	case "SNAP_TIME":
		return num(uint64(l.Snapshotted))
	}
	what, unit, _ := strings.Cut(name, "_")
	n := map[string]uint64{"MAPPED": l.Mapped, "EXCLUSIVE": l.Exclusive, "SHARED": l.Mapped - l.Exclusive}[what]
	switch unit {
	case "BLOCKS":
		return num(n)
	case "SECTORS":
		return num(n * blockSize)
	case "BYTES":
		return num(n * blockSize * blk.SectorSize)
	}
	return human(n * blockSize * blk.SectorSize)
}

// human formats a number of bytes like thin_ls.
func human(n uint64) string {
	units := []string{"", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	i := 0
	for ; n > 1<<20; i++ {
		n /= 1024
	}
	if n > 8*1024 {
		n = uint64(math.Round(float64(n) / 1024))
		i++
	}
	return strconv.FormatUint(n, 10) + units[i]
}

// grid writes columns, each right-aligned and followed by a blank.
func grid(w io.Writer, rows [][]string) error {
	var widths []int
	for _, row := range rows {
		for i, s := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], len(s))
		}
	}
	for _, row := range rows {
		var b strings.Builder
		for i, s := range row {
			fmt.Fprintf(&b, "%*s ", widths[i], s)
		}
		if _, err := fmt.Fprintln(w, b.String()); err != nil {
			return err
		}
	}
	return nil
}
