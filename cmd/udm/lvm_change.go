package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"udm/blk/leaf"
	"udm/ctl"
	"udm/env"
	"udm/lvm"
	"udm/lvm/edit"
)

// lvmDisksHelp explains the operands DISK… of the commands that change groups.
const lvmDisksHelp = `

Give all disks of the group, as for "udm lvm scan". Nothing else may use them
meanwhile, so no volume of the group may be active. No daemon is needed.`

// lvmChange is the change of a volume group.
type lvmChange struct {
	cmd   *cobra.Command
	disks diskOpener
	edit  *edit.Edit
	scan  *lvm.Result
}

// changeGroup changes the group with a name and commits.
func changeGroup(cmd *cobra.Command, name string, disks []string, change func(*lvmChange) error) error {
	c := newChange(cmd)
	return c.disks.with(disks, func() error {
		g, err := c.group(name)
		if err == nil {
			c.edit, err = edit.New(env.Real(), g, author(cmd))
		}
		if err == nil {
			err = change(c)
		}
		if err == nil {
			err = c.commit()
		}
		return err
	})
}

func newChange(cmd *cobra.Command) *lvmChange {
	return &lvmChange{cmd: cmd, disks: diskOpener{leaf: leaf.New(env.Real()), write: true}}
}

// author says who changes a group.
func author(cmd *cobra.Command) edit.Author {
	host, err := os.Hostname()
	if err != nil {
		host = "(none)"
	}
	return edit.Author{Host: host, Time: time.Now(), Command: "Write from " + cmd.CommandPath() + "."}
}

// group finds a group none of whose volumes is active.
func (c *lvmChange) group(name string) (*lvm.Assembled, error) {
	c.scan = lvm.Scan(env.Real(), c.disks.disks)
	g, err := lvmGroupOf(c.scan, name)
	if err != nil {
		return nil, err
	}
	client, err := clientOf(c.cmd)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	active, err := client.List(c.cmd.Context(), ctl.Query{})
	var none *ctl.NotRunning
	if errors.As(err, &none) {
		return g, nil
	}
	for _, d := range active {
		if strings.HasPrefix(d.UUID, lvm.DeviceUUID(g.ID, "", "")) {
			return nil, fmt.Errorf("the group %s is active (%s); deactivate it first: udm lvm deactivate %s", g.Name, d.Name, g.Name)
		}
	}
	return g, err
}

// commit commits, and prints the group for programs.
func (c *lvmChange) commit() error {
	err := c.edit.Commit()
	var some *lvm.Incomplete
	if err != nil && !errors.As(err, &some) {
		return err
	}
	if some != nil {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "udm: warning: %v\n", err)
	}
	if !wantsJSON(c.cmd) {
		return nil
	}
	for _, g := range lvm.Scan(env.Real(), c.disks.disks).Groups {
		if g.ID == c.edit.Group().ID {
			return printJSON(c.cmd, scannedGroup(g))
		}
	}
	return nil
}

// add adds the disks that are in no group. Partitions must have been named themselves.
func (c *lvmChange) add(found []*lvm.Found, force bool) error {
	for _, d := range found {
		if slices.Contains(c.disks.parts, d.Name) {
			_, disk, _ := strings.Cut(strings.TrimPrefix(d.Name, "part:"), ":")
			return fmt.Errorf("%s has partitions; name the one to use: part:N:%s", disk, disk)
		}
	}
	err := c.edit.AddDisks(found, force)
	if errors.Is(err, edit.ErrNotBlank) {
		err = fmt.Errorf("%w; use another disk, or --force if nothing on this one is needed", err)
	}
	return err
}

func vgCreateCommand() *cobra.Command {
	var force bool
	extent := lvmSize{sectors: edit.DefaultExtent}
	cmd := &cobra.Command{
		Use:   "vgcreate VG DISK…",
		Short: "Make disks physical volumes, and a volume group of them",
		Long: `vgcreate makes each disk a physical volume, and all of them a new volume group: LVM's
pvcreate and vgcreate in one. A disk is an image, a block device or a partition
(part:2:disk.img). It must be empty: nothing but zeroes in its first and last MiB.
With --force, what is on it is lost.`,
		Example: `  truncate -s 10G disk.img
  udm lvm vgcreate vg disk.img
  udm lvm vgcreate -s 32M data part:3:server.img /dev/sdb`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := newChange(cmd)
			return c.disks.with(args[1:], func() (err error) {
				if c.edit, err = edit.Create(env.Real(), args[0], extent.sectors, author(cmd)); err != nil {
					return err
				}
				if err := c.add(lvm.Scan(env.Real(), c.disks.disks).Disks, force); err != nil {
					return err
				}
				return c.commit()
			})
		},
	}
	cmd.Flags().VarP(&extent, "physicalextentsize", "s", "size of extents")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also use disks that are not empty; what is on them is lost")
	addJSON(cmd)
	return cmd
}

func vgExtendCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "vgextend VG DISK…",
		Short: "Add disks to a volume group",
		Long: `vgextend adds those of the disks that are in no group. They must be empty, as for
"udm lvm vgcreate".` + lvmDisksHelp,
		Example: `  udm lvm vgextend vg old.img new.img     # old.img is in the group already`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeGroup(cmd, args[0], args[1:], func(c *lvmChange) error {
				var others []*lvm.Found
				for _, d := range c.scan.Disks {
					if d.Group == nil && !(d.Label == nil && slices.Contains(c.disks.parts, d.Name)) {
						others = append(others, d)
					}
				}
				if len(others) == 0 {
					return errors.New("all of these disks are in a group already")
				}
				return c.add(others, force)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "also use disks that are not empty; what is on them is lost")
	addJSON(cmd)
	return cmd
}

func vgRenameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "vgrename VG NEWNAME DISK…",
		Short:   "Rename a volume group",
		Long:    `vgrename renames a volume group. VG may be its UUID.` + lvmDisksHelp,
		Example: `  udm lvm vgrename vg server disk.img`,
		Args:    cobra.MinimumNArgs(3),
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeGroup(cmd, args[0], args[2:], func(c *lvmChange) error { return c.edit.RenameGroup(args[1]) })
		},
	}
	addJSON(cmd)
	return cmd
}

func vgRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "vgremove VG DISK…",
		Short:   "Remove a volume group that has no volumes",
		Long:    `vgremove removes a volume group. Its disks stay physical volumes, in no group.` + lvmDisksHelp,
		Example: `  udm lvm vgremove vg disk.img`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := newChange(cmd)
			return c.disks.with(args[1:], func() error {
				g, err := c.group(args[0])
				if err == nil {
					err = edit.RemoveGroup(env.Real(), g)
				}
				if err == nil && wantsJSON(cmd) {
					err = printJSON(cmd, scanned(lvm.Scan(env.Real(), c.disks.disks)).Disks)
				}
				return err
			})
		},
	}
	addJSON(cmd)
	return cmd
}
