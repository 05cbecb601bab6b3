package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"udm/lvm"
	"udm/lvm/edit"
)

// lvCreateFlags are the options of udm lvm lvcreate.
type lvCreateFlags struct {
	length
	name, kind, pool, permission string
	zero, contiguous, spare      string
	discards                     string
	tags                         []string
	stripes                      uint64
	stripe, virtual, chunk, meta lvmSize
	thin, snapshot               bool
}

func lvCreateCommand() *cobra.Command {
	var f lvCreateFlags
	cmd := &cobra.Command{
		Use:   "lvcreate VG[/POOL|/ORIGIN] DISK…",
		Short: "Create a volume, a thin pool, a thin volume or a snapshot",
		Long: `lvcreate creates a volume, with the options of LVM's lvcreate:

  -L SIZE -n NAME VG                 a linear volume; with -i N striped over N disks
  -T -L SIZE VG/POOL                 a thin pool
  -V SIZE -n NAME -T VG/POOL         a thin volume
  -s -n NAME VG/ORIGIN               a snapshot of a thin volume
  -s -L SIZE -n NAME VG/ORIGIN       a snapshot of another volume, with room of its own

A number without a unit is MiB. Sizes are rounded up to extents. The first 4 KiB of a
new volume are zeroed; file systems that were in its place before may be found behind.
As in LVM, a snapshot of a thin volume is activated only on request.` + lvmDisksHelp,
		Example: `  udm lvm lvcreate -L 8G -n root vg disk.img
  udm lvm lvcreate -l 100%FREE -i 2 -n data vg a.img b.img
  udm lvm lvcreate -T -L 20G vg/pool disk.img
  udm lvm lvcreate -V 100G -n home -T vg/pool disk.img
  udm lvm lvcreate -s -n home-before vg/home disk.img`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, volume, _ := strings.Cut(args[0], "/")
			if group == "" || strings.Contains(volume, "/") {
				return usagef(cmd, "%q is neither VG nor VG/LV", args[0])
			}
			if err := f.check(cmd, &volume); err != nil {
				return err
			}
			return changeGroup(cmd, group, args[1:], func(c *lvmChange) error { return f.create(c.edit, volume) })
		},
	}
	f.add(cmd)
	addJSON(cmd)
	return cmd
}

func (f *lvCreateFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	addLength(cmd, &f.length)
	fl.StringVarP(&f.name, "name", "n", "", "name of the volume")
	fl.StringVar(&f.kind, "type", "", "linear, striped, thin-pool, thin or snapshot, instead of -i, -T and -s")
	fl.Uint64VarP(&f.stripes, "stripes", "i", 0, "number of disks to stripe over")
	fl.VarP(&f.stripe, "stripesize", "I", "size of stripes (default 64K)")
	fl.BoolVarP(&f.thin, "thin", "T", false, "create a thin pool, or with -V a thin volume")
	fl.VarP(&f.virtual, "virtualsize", "V", "size of a thin volume")
	fl.StringVar(&f.pool, "thinpool", "", "pool of the thin volume, or name of the pool")
	fl.BoolVarP(&f.snapshot, "snapshot", "s", false, "create a snapshot")
	fl.VarP(&f.chunk, "chunksize", "c", "size of the chunks of a pool or snapshot")
	fl.Var(&f.meta, "poolmetadatasize", "size of a pool's metadata")
	fl.StringVar(&f.spare, "poolmetadataspare", "y", "y or n: make a spare for the repair of pools")
	fl.StringVar(&f.discards, "discards", "passdown", "what a pool does with discards: passdown, nopassdown or ignore")
	fl.StringVarP(&f.permission, "permission", "p", "rw", "rw or r: whether the volume may be written to")
	fl.StringVarP(&f.zero, "zero", "Z", "y", "y or n: zero the start of a volume, or new chunks of a pool")
	fl.StringVarP(&f.contiguous, "contiguous", "C", "n", "y or n: the volume must be in one piece")
	fl.StringArrayVar(&f.tags, "addtag", nil, "tag of the volume; may be repeated")
}

// addLength gives a command the options -L and -l.
func addLength(cmd *cobra.Command, l *length) {
	cmd.Flags().VarP(&l.size, "size", "L", "size")
	cmd.Flags().VarP(&l.extents, "extents", "l", "size in extents, or N%VG or N%FREE")
	cmd.MarkFlagsMutuallyExclusive("size", "extents")
}

// check completes the options, and finds contradictions.
func (f *lvCreateFlags) check(cmd *cobra.Command, volume *string) error {
	for name, v := range map[string]string{"poolmetadataspare": f.spare, "zero": f.zero, "contiguous": f.contiguous} {
		if v != "y" && v != "n" {
			return usagef(cmd, "--%s is y or n", name)
		}
	}
	if f.permission != "r" && f.permission != "rw" {
		return usagef(cmd, "--permission is r or rw")
	}
	switch f.discards {
	case "passdown", "nopassdown", "ignore":
	default:
		return usagef(cmd, "--discards is passdown, nopassdown or ignore")
	}
	if err := f.chooseKind(cmd); err != nil {
		return err
	}
	if f.kind == "thin-pool" || f.kind == "thin" {
		if *volume == "" {
			*volume = f.pool
		}
		if f.kind == "thin-pool" && f.name == "" {
			f.name = *volume
		}
	}
	return f.missing(cmd, *volume)
}

// chooseKind decides what is created.
func (f *lvCreateFlags) chooseKind(cmd *cobra.Command) error {
	if f.kind == "" {
		switch {
		case f.snapshot:
			f.kind = "snapshot"
		case f.virtual.sectors > 0:
			f.kind = "thin"
		case f.thin || f.pool != "":
			f.kind = "thin-pool"
		case f.stripes > 1:
			f.kind = "striped"
		default:
			f.kind = "linear"
		}
	}
	switch f.kind {
	case "linear", "striped", "thin-pool", "thin", "snapshot":
		return nil
	}
	return usagef(cmd, "volumes of type %s cannot be created", f.kind)
}

// missing fails for options that are missing or do not fit.
func (f *lvCreateFlags) missing(cmd *cobra.Command, volume string) error {
	plain := f.kind == "linear" || f.kind == "striped"
	switch {
	case f.size.sign != "" || f.extents.sign != "" || f.virtual.sign != "" || f.chunk.sign != "" || f.meta.sign != "" || f.stripe.sign != "":
		return usagef(cmd, "a new volume has no size to add to")
	case plain && volume != "":
		return usagef(cmd, "give the name with -n: udm lvm lvcreate -n %s VG DISK…", volume)
	case f.name == "":
		return usagef(cmd, "--name is missing")
	case f.kind == "thin" && (volume == "" || f.virtual.sectors == 0):
		return usagef(cmd, "a thin volume needs a pool and a size: -V SIZE -T VG/POOL")
	case f.kind == "thin" && f.given():
		return usagef(cmd, "a thin volume has no size but -V; create the pool first")
	case f.kind == "snapshot" && volume == "":
		return usagef(cmd, "give the origin: VG/ORIGIN")
	case (plain || f.kind == "thin-pool") && !f.given():
		return usagef(cmd, "--size is missing")
	}
	return nil
}

func (f *lvCreateFlags) create(ed *edit.Edit, volume string) error {
	_, n := f.of(ed)
	readOnly := f.permission == "r"
	layout := edit.Layout{Stripes: f.stripes, StripeSectors: f.stripe.sectors, Contiguous: f.contiguous == "y"}
	switch f.kind {
	case "thin-pool":
		return ed.CreatePool(edit.Pool{Name: f.name, Extents: n, MetadataExtents: extentsOf(ed, f.meta.sectors), ChunkSectors: f.chunk.sectors, Layout: layout,
			Discards: f.discards, KeepData: f.zero == "n", NoSpare: f.spare == "n"})
	case "thin":
		return ed.CreateThin(edit.Thin{Name: f.name, Pool: volume, Extents: extentsOf(ed, f.virtual.sectors), Tags: f.tags, ReadOnly: readOnly})
	case "snapshot":
		if !f.given() {
			return ed.CreateThinSnapshot(f.name, volume, readOnly)
		}
		return ed.CreateSnapshot(edit.Snapshot{Name: f.name, Origin: volume, Extents: n, ChunkSectors: f.chunk.sectors, ReadOnly: readOnly})
	}
	return ed.CreateVolume(edit.Volume{Name: f.name, Extents: n, Layout: layout, Tags: f.tags, ReadOnly: readOnly, KeepData: f.zero == "n"})
}

// lvResizeCommand is lvresize, or one of its two halves.
func lvResizeCommand(name string) *cobra.Command {
	var l length
	var meta lvmSize
	var force bool
	does := map[string]string{"lvresize": "Change the size of a volume", "lvextend": "Extend a volume or a pool", "lvreduce": "Make a volume shorter; its end is lost"}
	size := map[string]string{"lvresize": "+2G", "lvextend": "+2G", "lvreduce": "4G --force"}
	cmd := &cobra.Command{
		Use:   name + " VG/LV DISK…",
		Short: does[name],
		Long: does[name] + `. -L SIZE is the new size; with a sign it is added or taken away. A
number without a unit is MiB. The file system in the volume is not changed: extend it
afterwards, or make it smaller before. What a volume loses at its end is gone: --force
is needed for that. A pool, its metadata (--poolmetadatasize) and a snapshot can only be
extended, and the origin of a snapshot with a size of its own cannot be resized.` + lvmDisksHelp,
		Example: fmt.Sprintf("  udm lvm %s -L %s vg/root disk.img", name, size[name]),
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, volume, err := lvmName(cmd, args[0])
			switch {
			case err != nil:
				return err
			case volume == "":
				return usagef(cmd, "%q is not VG/LV", args[0])
			case !l.given() && meta.sectors == 0:
				return usagef(cmd, "--size is missing")
			}
			return changeGroup(cmd, group, args[1:], func(c *lvmChange) error {
				if l.given() {
					if err := resizeVolume(c.edit, volume, name, &l, force); err != nil {
						return err
					}
				}
				if meta.sectors > 0 {
					return resizeMetadata(c.edit, volume, meta)
				}
				return nil
			})
		},
	}
	addLength(cmd, &l)
	if name != "lvreduce" {
		cmd.Flags().Var(&meta, "poolmetadatasize", "size of a pool's metadata")
	}
	if name != "lvextend" {
		cmd.Flags().BoolVarP(&force, "force", "f", false, "allow a smaller size; the end of the volume is lost")
	}
	addJSON(cmd)
	return cmd
}

func resizeVolume(ed *edit.Edit, volume, name string, l *length, force bool) error {
	lv := ed.Group().LV(volume)
	if lv == nil {
		return fmt.Errorf("the group %s has no volume %q", ed.Group().Name, volume)
	}
	now := lv.Extents()
	n, err := l.from(ed, now)
	switch {
	case err != nil:
		return err
	case n == now:
		return fmt.Errorf("%s has that size already", volume)
	case n < now && name == "lvextend":
		return fmt.Errorf("%s is larger already; lvreduce makes it smaller", volume)
	case n > now && name == "lvreduce":
		return fmt.Errorf("%s is smaller already; lvextend makes it larger", volume)
	case n < now && !force:
		return fmt.Errorf("%s would lose its end; make its file system smaller first, and then give --force", volume)
	}
	return ed.Resize(volume, n)
}

func resizeMetadata(ed *edit.Edit, pool string, size lvmSize) error {
	lv := ed.Group().LV(pool)
	if lv == nil {
		return fmt.Errorf("the group %s has no volume %q", ed.Group().Name, pool)
	}
	k, ok := lv.Segments[0].Kind.(*lvm.ThinPool)
	if !ok {
		return fmt.Errorf("%s is not a thin pool", pool)
	}
	l := length{size: size}
	n, err := l.from(ed, ed.Group().LV(k.Metadata).Extents())
	if err != nil {
		return err
	}
	return ed.ResizeMetadata(pool, n)
}

func lvRenameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "lvrename VG/LV NEWNAME DISK…",
		Short:   "Rename a volume",
		Long:    `lvrename renames a volume, and the parts of a pool with it.` + lvmDisksHelp,
		Example: `  udm lvm lvrename vg/home users disk.img`,
		Args:    cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, volume, err := lvmName(cmd, args[0])
			if err != nil {
				return err
			}
			return changeGroup(cmd, group, args[2:], func(c *lvmChange) error { return c.edit.Rename(volume, args[1]) })
		},
	}
	addJSON(cmd)
	return cmd
}

func lvRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lvremove VG/LV DISK…",
		Short: "Remove a volume; its content is lost",
		Long: `lvremove removes a volume that no other one needs: an origin after its snapshots, a
thin pool after its volumes. A thin volume can be removed before its snapshots.` + lvmDisksHelp,
		Example: `  udm lvm lvremove vg/home-before disk.img`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, volume, err := lvmName(cmd, args[0])
			if err == nil && volume == "" {
				err = errors.New("name the volume to remove: VG/LV")
			}
			if err != nil {
				return err
			}
			return changeGroup(cmd, group, args[1:], func(c *lvmChange) error { return c.edit.Remove(volume) })
		},
	}
	addJSON(cmd)
	return cmd
}
