package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"udm"
	"udm/blk"
	"udm/ctl"
	"udm/env"
	"udm/targets/thin/thinrescue"
)

// rescue is the command and its options.
type rescue struct {
	block, size       sectorsFlag
	outdated, certain bool
	volume            string
	copyTo, socket    string
	create            string

	pool       *thinrescue.Pool
	meta, data string // absolute paths
}

func rescueCommand() *cobra.Command {
	var r rescue
	cmd := &cobra.Command{
		Use:   "rescue METADATA DATA",
		Short: "Read the volumes of a damaged pool",
		Long: `rescue finds the volumes of a pool whose metadata are damaged: also if the superblock,
the roots of the trees or the space maps are lost. It never writes to METADATA and DATA;
nobody else may write to them meanwhile. It lists the volumes; with --copy it copies one
into a new sparse file, with --socket it serves them over NBD until it is interrupted, and
with --create it makes read-only devices of the daemon, which can be exported and mounted.

What is LOST cannot be read. What was FOUND BY SEARCH, because nothing undamaged leads to
it, may be out of date, or belong to another volume; with --certain it cannot be read
either. With --outdated, lost ranges are read as older transactions had them. A volume
named @NUMBER is one whose number is lost.

If the superblock is lost, --block-size must say how large the pool's blocks are. The
metadata do not say how large a volume is; without --size it ends with its last block.
The exit code is 1 if something is lost or was found by search.`,
		Example: `  udm rescue p.metadata p.data
  udm rescue p.metadata p.data --volume 5 --copy vm.img
  udm rescue p.metadata p.data --socket rescue.sock &
  udm rescue p.metadata p.data --create old --block-size 64K`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args[0], args[1]) },
	}
	f := cmd.Flags()
	f.Var(&r.block, "block-size", "size of the pool's blocks, if the superblock is lost")
	f.StringVar(&r.volume, "volume", "", "only this `VOLUME`")
	f.Var(&r.size, "size", "size of the volume")
	f.BoolVar(&r.outdated, "outdated", false, "read what is lost as older transactions had it")
	f.BoolVar(&r.certain, "certain", false, "read only what is certain")
	f.StringVar(&r.copyTo, "copy", "", "copy the volume into this new `FILE`")
	f.StringVar(&r.socket, "socket", "", "serve the volumes over NBD at this `SOCKET`")
	f.StringVar(&r.create, "create", "", "make devices `NAME`-VOLUME in the daemon")
	cmd.MarkFlagsMutuallyExclusive("copy", "socket", "create")
	addJSON(cmd)
	return cmd
}

func (r *rescue) run(cmd *cobra.Command, meta, data string) (err error) {
	switch {
	case r.copyTo != "" && r.volume == "":
		return usagef(cmd, "--copy needs --volume")
	case r.size != 0 && r.volume == "":
		return usagef(cmd, "--size needs --volume")
	}
	if r.meta, err = filepath.Abs(meta); err == nil {
		r.data, err = filepath.Abs(data)
	}
	if err != nil {
		return err
	}
	return withDevice(r.meta, false, func(m blk.Device) error {
		return withDevice(r.data, false, func(d blk.Device) error { return r.examined(cmd, m, d) })
	})
}

func (r *rescue) examined(cmd *cobra.Command, m, d blk.Device) (err error) {
	report, end := progress(cmd, "searching ")
	r.pool, err = thinrescue.Examine(env.Real(), m, thinrescue.Options{BlockSectors: uint64(r.block),
		DataSectors: d.Limits().Size, Outdated: r.outdated, Progress: report})
	end()
	if err != nil {
		return err
	}
	volumes := r.pool.Volumes
	if r.volume != "" {
		v, err := r.pool.Volume(r.volume)
		if err != nil {
			return err
		}
		volumes = []*thinrescue.Volume{v}
	}
	switch {
	case r.copyTo != "":
		return r.copy(cmd, volumes[0], d)
	case r.socket != "":
		return r.serve(cmd, volumes)
	case r.create != "":
		return r.makeDevices(cmd, volumes)
	}
	return r.report(cmd, volumes)
}

// table is the table of a volume.
func (r *rescue) table(v *thinrescue.Volume) string {
	sectors := v.Sectors()
	if r.size != 0 {
		sectors = uint64(r.size)
	}
	l := &thinrescue.Line{Metadata: r.meta, Data: r.data, Volume: v.Name(), BlockSectors: uint64(r.block), Outdated: r.outdated, Certain: r.certain}
	return udm.Table(udm.Line(0, max(sectors, r.pool.BlockSectors), l.Target(), l))
}

func (r *rescue) serve(cmd *cobra.Command, volumes []*thinrescue.Volume) error {
	if len(volumes) == 0 {
		return errors.New("no volume was found")
	}
	s := udm.New()
	return serveUntilDone(cmd, s, volumes[0].Name(), r.socket, func() error {
		for _, v := range volumes {
			if _, err := s.CreateReadOnly(v.Name(), r.table(v)); err != nil {
				return err
			}
		}
		return nil
	})
}

// makeDevices makes a device for each volume in the daemon, all or none.
func (r *rescue) makeDevices(cmd *cobra.Command, volumes []*thinrescue.Volume) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	var made []ctl.Device
	for _, v := range volumes {
		name := r.create + "-" + strings.TrimPrefix(v.Name(), "@")
		d, err := client.Create(cmd.Context(), ctl.Create{Name: name, Table: r.table(v), ReadOnly: true})
		if err != nil {
			for _, d := range made {
				err = errors.Join(err, client.Remove(cmd.Context(), ctl.Remove{Ref: ctl.Ref{Name: d.Name}}))
			}
			return explain(name, err)
		}
		made = append(made, d)
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, made)
	}
	for _, d := range made {
		fmt.Fprintln(cmd.OutOrStdout(), d.Name)
	}
	return nil
}

// rescued is a copy in JSON output.
type rescued struct {
	Bytes      uint64                 `json:"writtenBytes"`
	Lost       uint64                 `json:"lostBytes"`
	Unreadable []thinrescue.ByteRange `json:"lost"`
}

func (r *rescue) copy(cmd *cobra.Command, v *thinrescue.Volume, data blk.Device) error {
	f, err := os.OpenFile(r.copyTo, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	report, end := progress(cmd, "copying ")
	c, err := v.Copy(cmd.Context(), data, f, thinrescue.CopyOptions{Sectors: uint64(r.size), Certain: r.certain, Progress: report})
	end()
	size := v.Sectors()
	if r.size != 0 {
		size = uint64(r.size)
	}
	if err == nil {
		err = f.Truncate(int64(size * blk.SectorSize))
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(r.copyTo))
	}
	out := rescued{Bytes: c.Bytes, Unreadable: append([]thinrescue.ByteRange{}, c.Unreadable...)}
	for _, u := range c.Unreadable {
		out.Lost += u.Length
		if !wantsJSON(cmd) {
			fmt.Fprintf(cmd.ErrOrStderr(), "lost: %d bytes at %d\n", u.Length, u.Offset)
		}
	}
	if err := say(cmd, out, "%s: wrote %s, lost %s\n", r.copyTo, formatBytes(out.Bytes), formatBytes(out.Lost)); err != nil || out.Lost == 0 && v.Whole() {
		return err
	}
	return exitCode(1)
}

// rescueReport is what was found, in JSON output. Sizes are in bytes.
type rescueReport struct {
	Source      thinrescue.Source `json:"source"`
	NeedsCheck  bool              `json:"needsCheck"`
	Transaction uint64            `json:"transaction,omitempty"`
	Block       uint64            `json:"blockSize"`
	Damages     int               `json:"damagedBlocks"`
	Damaged     []uint64          `json:"damaged,omitempty"`
	Unclaimed   uint64            `json:"unclaimedBytes,omitempty"`
	Volumes     []rescuedVolume   `json:"volumes"`
}

type rescuedVolume struct {
	Volume   string                 `json:"volume"`
	Mapped   uint64                 `json:"mappedBytes"`
	Searched uint64                 `json:"foundBySearchBytes"`
	Expected *uint64                `json:"expectedBytes,omitempty"` // as its details say
	Size     uint64                 `json:"endByte"`
	Gaps     int                    `json:"lostRanges"`
	Lost     []thinrescue.ByteRange `json:"lost,omitempty"` // length 0: to the end
	Whole    bool                   `json:"whole"`
}

func (r *rescue) report(cmd *cobra.Command, volumes []*thinrescue.Volume) error {
	p := r.pool
	bytes := func(blocks uint64) uint64 { return blocks * p.BlockSectors * blk.SectorSize }
	out := rescueReport{p.Source, p.NeedsCheck, p.TransactionID, bytes(1), p.Damages, p.Damaged, bytes(p.Unclaimed), []rescuedVolume{}}
	whole := p.Source == thinrescue.BySuperblock && p.Damages == 0
	for _, v := range volumes {
		o := rescuedVolume{Volume: v.Name(), Mapped: bytes(v.Mapped), Searched: bytes(v.Searched), Size: bytes(v.End), Gaps: v.Gaps, Whole: v.Whole()}
		if v.Details != nil {
			n := bytes(v.Details.Mapped)
			o.Expected = &n
		}
		for _, l := range v.Missing {
			b := thinrescue.ByteRange{Offset: bytes(l.Begin)}
			if l.End != thinrescue.NoEnd {
				b.Length = bytes(l.End - l.Begin)
			}
			o.Lost = append(o.Lost, b)
		}
		whole = whole && o.Whole
		out.Volumes = append(out.Volumes, o)
	}
	if err := printRescue(cmd, &out); err != nil || whole {
		return err
	}
	return exitCode(1)
}

func printRescue(cmd *cobra.Command, r *rescueReport) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, r)
	}
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "trees found by %s, %d damaged metadata blocks\n", strings.ReplaceAll(string(r.Source), "-", " "), r.Damages)
	if r.NeedsCheck {
		fmt.Fprintln(w, "the pool has needs_check set: a commit of its metadata failed")
	}
	if r.Unclaimed > 0 {
		fmt.Fprintf(w, "mappings of %s were found whose volumes are not known\n", formatBytes(r.Unclaimed))
	}
	rows := [][]string{{"VOLUME", "MAPPED", "OF", "FOUND BY SEARCH", "LOST RANGES", "END"}}
	for _, v := range r.Volumes {
		row := []string{v.Volume, formatBytes(v.Mapped), "", "", "", formatBytes(v.Size)}
		if v.Expected != nil {
			row[2] = formatBytes(*v.Expected)
		}
		if v.Searched > 0 {
			row[3] = formatBytes(v.Searched)
		}
		if v.Gaps > 0 {
			row[4] = strconv.Itoa(v.Gaps)
		}
		rows = append(rows, row)
	}
	if len(rows) > 1 {
		if err := printTable(w, rows); err != nil {
			return err
		}
	}
	for _, v := range r.Volumes {
		v.printLost(w)
	}
	return nil
}

// printLost prints the first ranges that are lost.
func (v *rescuedVolume) printLost(w io.Writer) {
	const most = 10
	for _, l := range v.Lost[:min(most, len(v.Lost))] {
		if l.Length == 0 {
			fmt.Fprintf(w, "volume %s: lost from byte %d on\n", v.Volume, l.Offset)
		} else {
			fmt.Fprintf(w, "volume %s: lost %d bytes at %d\n", v.Volume, l.Length, l.Offset)
		}
	}
	if n := v.Gaps - most; n > 0 {
		fmt.Fprintf(w, "volume %s: %d more lost ranges; --json lists up to 10000\n", v.Volume, n)
	}
}
