package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/blk/leaf"
	"udm/blk/partition"
	"udm/env"
	"udm/luks"
	"udm/lvm"
)

func lvmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lvm",
		Short: "Show, make and change LVM2 volume groups, and activate their volumes",
		Example: `  udm lvm scan server.img
  udm lvm activate vg server.img
  udm lvm vgcreate vg disk.img
  udm lvm lvcreate -L 1G -n root vg disk.img`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(lvmScanCommand(), lvmActivateCommand(), lvmDeactivateCommand(),
		vgCreateCommand(), vgExtendCommand(), vgReduceCommand(), vgRenameCommand(), vgRemoveCommand(), pvMoveCommand(),
		lvCreateCommand(), lvResizeCommand("lvresize"), lvResizeCommand("lvextend"), lvResizeCommand("lvreduce"), lvRenameCommand(), lvRemoveCommand())
	return cmd
}

func lvmScanCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "scan DISK…",
		Short: "List the volume groups on disks: volumes, and what is missing or damaged",
		Long: `List the volume groups on disks: volumes, and what is missing or damaged. Nothing is
written, and no daemon is needed. Give all disks of a group at once. If a disk has a
partition table, its partitions are scanned. A DISK is a path, or any other name that
a table may have for a disk:
` + leaf.Help(),
		Example: `  udm lvm scan a.img b.img
  udm lvm scan --json /dev/sdb2
  udm lvm scan nbd://host/disk`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDisks(args, func(disks []lvm.Disk) error {
				r := lvm.Scan(env.Real(), disks)
				if wantsJSON(cmd) {
					return printJSON(cmd, scanned(r))
				}
				return printScan(cmd.OutOrStdout(), scanned(r))
			})
		},
	}
	addJSON(cmd)
	return cmd
}

// withDisks opens disks for reading while f runs. If a disk has partitions, it opens
// these instead.
func withDisks(names []string, f func([]lvm.Disk) error) error {
	o := diskOpener{leaf: leaf.New(env.Real())}
	return o.with(names, func() error { return f(o.disks) })
}

// diskOpener opens disks.
type diskOpener struct {
	leaf  *leaf.Opener
	write bool // the disks, and the partitions of partitioned ones, are for writing
	// served has the NBD addresses of disks that a daemon has open, by their names.
	served map[string]string
	disks  []lvm.Disk
	whole  []blk.Device // with partitions
	parts  []string     // names of partitions that were not named themselves
}

// with opens disks while f runs.
func (o *diskOpener) with(names []string, f func() error) (err error) {
	defer func() { err = errors.Join(err, o.close()) }()
	for _, name := range names {
		if err := o.openWhole(name); err != nil {
			return err
		}
	}
	return f()
}

func (o *diskOpener) close() (err error) {
	for _, d := range o.disks {
		err = errors.Join(err, d.Device.Close())
	}
	for _, d := range o.whole {
		err = errors.Join(err, d.Close())
	}
	return err
}

// openWhole opens a disk named on the command line.
func (o *diskOpener) openWhole(name string) error {
	name, err := realDiskName(name)
	if err != nil {
		return err
	}
	dev, _, err := o.leaf.Open(name, false)
	if err != nil {
		return err
	}
	d := lvm.Disk{Name: name, Device: dev}
	table, err := partition.Read(env.Real(), dev)
	if err != nil || d.Labelled(env.Real()) {
		return o.use(d)
	}
	o.whole = append(o.whole, dev)
	return o.openPartitions(name, table)
}

// realDiskName is the name of a disk on the command line without symbolic links.
func realDiskName(name string) (string, error) {
	name, err := diskName(name)
	if err != nil || !filepath.IsAbs(name) {
		return name, err
	}
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	return name, nil
}

// use takes a disk that is open for reading.
func (o *diskOpener) use(d lvm.Disk) (err error) {
	if o.write {
		reader := d.Device
		d.Device, _, err = o.leaf.Open(cmp.Or(o.served[d.Name], d.Name), true)
		if err = errors.Join(err, reader.Close()); err != nil {
			return err
		}
	}
	o.disks = append(o.disks, d)
	return nil
}

func (o *diskOpener) openPartitions(disk string, table *partition.Table) error {
	for _, p := range table.Partitions {
		if p.Extended {
			continue
		}
		name := fmt.Sprintf("part:%d:%s", p.Number, disk)
		dev, _, err := o.leaf.Open(cmp.Or(o.served[name], name), o.write)
		if err != nil {
			return err
		}
		o.disks, o.parts = append(o.disks, lvm.Disk{Name: name, Device: dev}), append(o.parts, name)
	}
	return nil
}

// lvmScan is the result of a scan in JSON output.
type lvmScan struct {
	Disks  []lvmDisk  `json:"disks"`
	Groups []lvmGroup `json:"groups"`
}

type lvmDisk struct {
	Name      string    `json:"name"`
	Sectors   uint64    `json:"sectors"`
	UUID      string    `json:"uuid,omitempty"`
	Group     string    `json:"group,omitempty"`
	Areas     []lvmArea `json:"areas,omitempty"`
	Encrypted bool      `json:"encrypted,omitempty"` // it is a LUKS disk
	Error     string    `json:"error,omitempty"`
}

type lvmArea struct {
	Offset  uint64 `json:"offsetBytes"`
	Size    uint64 `json:"sizeBytes"`
	Ignored bool   `json:"ignored,omitempty"`
	Error   string `json:"error,omitempty"`
}

type lvmGroup struct {
	Name     string      `json:"name"`
	UUID     string      `json:"uuid"`
	Seqno    uint64      `json:"seqno"`
	Extent   uint64      `json:"extentSectors,omitempty"`
	Tags     []string    `json:"tags,omitempty"`
	Error    string      `json:"error,omitempty"`
	Problems []string    `json:"problems,omitempty"`
	Missing  []string    `json:"missing,omitempty"`
	Volumes  []lvmVolume `json:"volumes"`
}

type lvmVolume struct {
	Name     string   `json:"name"`
	UUID     string   `json:"uuid"`
	Sectors  uint64   `json:"sectors"`
	Type     string   `json:"type"`
	Hidden   bool     `json:"hidden,omitempty"`
	ReadOnly bool     `json:"readOnly,omitempty"`
	Origin   string   `json:"origin,omitempty"`
	Pool     string   `json:"pool,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Health   string   `json:"health"`             // "ok" or "partial"
	Unusable string   `json:"unusable,omitempty"` // why it cannot be activated
}

func scanned(r *lvm.Result) lvmScan {
	s := lvmScan{Disks: []lvmDisk{}, Groups: []lvmGroup{}}
	for _, f := range r.Disks {
		s.Disks = append(s.Disks, scannedDisk(f))
	}
	for _, g := range r.Groups {
		s.Groups = append(s.Groups, scannedGroup(g))
	}
	return s
}

func scannedDisk(f *lvm.Found) lvmDisk {
	d := lvmDisk{Name: f.Name, Sectors: f.Device.Limits().Size, Error: orEmpty(f.Err)}
	d.Encrypted = f.Label == nil && luks.Is(env.Real(), f.Device)
	if f.Label != nil {
		d.UUID = f.Label.ID.String()
	}
	if f.Group != nil {
		d.Group = f.Group.Name
	}
	for _, a := range f.Areas {
		d.Areas = append(d.Areas, lvmArea{a.Offset, a.Size, a.Ignored, orEmpty(a.Err)})
	}
	return d
}

func scannedGroup(a *lvm.Assembled) lvmGroup {
	g := lvmGroup{Name: a.Name, UUID: a.ID.String(), Seqno: a.Seqno, Problems: a.Problems, Missing: a.Missing(), Volumes: []lvmVolume{}}
	_, skipped, err := a.Tree(lvm.TreeOptions{Skip: true})
	g.Error = orEmpty(err)
	if a.Group == nil {
		return g
	}
	g.Extent, g.Tags = a.ExtentSize, a.Tags
	for _, l := range a.LVs {
		v := lvmVolume{Name: l.Name, UUID: l.ID.String(), Sectors: a.Sectors(l), Type: l.Type(), Hidden: !l.Visible(), ReadOnly: !l.Writable(),
			Origin: l.Origin(), Pool: l.Pool(), Tags: l.Tags, Health: "ok"}
		if a.Partial(l) {
			v.Health = "partial"
		}
		for _, s := range skipped {
			if s.LV == l.Name {
				v.Unusable = s.Why.Error()
			}
		}
		g.Volumes = append(g.Volumes, v)
	}
	return g
}

// orEmpty is the text of an error, or "".
func orEmpty(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// printScan prints the disks, the visible volumes, and problems.
func printScan(w io.Writer, s lvmScan) error {
	disks := [][]string{{"DISK", "SIZE", "GROUP", "STATE"}}
	volumes := [][]string{{"GROUP", "VOLUME", "SIZE", "TYPE", "ORIGIN", "POOL", "STATE"}}
	var wrong []string
	for _, d := range s.Disks {
		disks = append(disks, []string{d.Name, formatSectors(d.Sectors), d.Group, d.state()})
		if d.Error != "" {
			wrong = append(wrong, d.Error)
		}
		for _, a := range d.Areas {
			if a.Error != "" {
				wrong = append(wrong, a.Error)
			}
		}
	}
	for _, g := range s.Groups {
		if g.Error != "" {
			wrong = append(wrong, g.Name+": "+g.Error)
		}
		for _, p := range g.Problems {
			wrong = append(wrong, g.Name+": "+p)
		}
		for _, v := range g.Volumes {
			if !v.Hidden {
				volumes = append(volumes, []string{g.Name, v.Name, formatSectors(v.Sectors), v.Type, v.Origin, v.Pool, v.state()})
			}
		}
	}
	if err := printTable(w, disks); err != nil {
		return err
	}
	if len(volumes) > 1 {
		fmt.Fprintln(w)
		if err := printTable(w, volumes); err != nil {
			return err
		}
	}
	for i, line := range wrong {
		if i == 0 {
			fmt.Fprintln(w)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

func (d lvmDisk) state() string {
	switch {
	case d.Error != "":
		return "damaged"
	case d.Encrypted:
		return "LUKS: scan what udm luks open serves"
	case d.UUID == "":
		return "not a physical volume"
	case d.Group == "":
		return "in no group"
	}
	return ""
}

func (v lvmVolume) state() string {
	if v.Health == "partial" {
		return "partial"
	}
	return v.Unusable
}
