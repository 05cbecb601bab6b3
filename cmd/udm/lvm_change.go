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
	"udm/lvm/activation"
	"udm/lvm/edit"
)

// lvmDisksHelp explains the operands DISK… of the commands that change groups.
const lvmDisksHelp = `

Give all disks of the group, as for "udm lvm scan". Nothing else may use them
meanwhile. No daemon is needed. If volumes of the group are active for writing on
the daemon (udm lvm activate --writable), they stay in use, and follow.`

// lvmChange is the change of a volume group.
type lvmChange struct {
	cmd   *cobra.Command
	disks diskOpener
	edit  *edit.Edit
	scan  *lvm.Result
	live  *activation.Live // nil: no volume is active
}

// changeGroup changes the group with a name and commits.
func changeGroup(cmd *cobra.Command, name string, disks []string, change func(*lvmChange) error) error {
	return changeGroupBy(cmd, name, disks, edit.New, change)
}

// changeGroupBy is changeGroup with another start of the change.
func changeGroupBy(cmd *cobra.Command, name string, disks []string, start starter, change func(*lvmChange) error) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	live, err := liveGroup(cmd, client, name, disks)
	if err != nil {
		return err
	}
	if live != nil {
		return changeLive(cmd, live, name, disks, start, change)
	}
	c := newChange(cmd)
	return c.disks.with(disks, func() error {
		c.scan = lvm.Scan(env.Real(), c.disks.disks)
		g, err := lvmGroupOf(c.scan, name)
		if err == nil {
			err = c.apply(g, start, change)
		}
		return err
	})
}

// starter is edit.New or edit.NewWithout.
type starter func(env.Env, *lvm.Assembled, edit.Author) (*edit.Edit, error)

func (c *lvmChange) apply(g *lvm.Assembled, start starter, change func(*lvmChange) error) (err error) {
	if c.edit, err = start(env.Real(), g, author(c.cmd)); err != nil {
		return err
	}
	if c.live != nil {
		c.edit.UsePools(c.live)
	}
	if err := change(c); err != nil {
		return err
	}
	return c.commit()
}

// liveGroup returns a group some of whose volumes are active, or nil.
func liveGroup(cmd *cobra.Command, client *ctl.Client, name string, disks []string) (live *activation.Live, err error) {
	var none *ctl.NotRunning
	if _, err := client.Version(cmd.Context()); errors.As(err, &none) {
		return nil, nil
	}
	err = withDisks(disks, func(disks []lvm.Disk) error {
		g, err := lvmGroupOf(lvm.Scan(env.Real(), disks), name)
		if err == nil {
			live, err = activation.Examine(cmd.Context(), client, g)
		}
		return err
	})
	return live, err
}

// changeLive changes a group with active volumes: their daemon, which has the disks open,
// serves them to this command, too.
func changeLive(cmd *cobra.Command, live *activation.Live, name string, disks []string, start starter, change func(*lvmChange) error) (err error) {
	root, err := rootOf(cmd)
	if err != nil {
		return err
	}
	served, err := live.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, live.Close()) }()
	c := newChange(cmd)
	c.live = live
	c.disks.served = map[string]string{}
	for disk, device := range served {
		c.disks.served[disk] = nbdURI(root, device)
	}
	return c.disks.with(disks, func() error {
		c.scan = lvm.Scan(env.Real(), c.disks.disks)
		g, err := lvmGroupOf(c.scan, name)
		switch {
		case err != nil:
			return err
		case !live.Examined(g):
			return fmt.Errorf("another command has just changed the group %s; try again", name)
		}
		return c.apply(g, start, change)
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

// commit commits, lets active volumes follow, and prints the group for programs.
func (c *lvmChange) commit() error {
	err := c.edit.Commit()
	var some *lvm.Incomplete
	if err != nil && !errors.As(err, &some) {
		return err
	}
	if some != nil {
		fmt.Fprintf(c.cmd.ErrOrStderr(), "udm: warning: %v\n", err)
	}
	if c.live != nil {
		if err := c.live.Follow(c.edit.After()); err != nil {
			return fmt.Errorf("the group was changed, but not all of its devices; deactivate and activate it again: %w", err)
		}
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
				g, err := lvmGroupOf(lvm.Scan(env.Real(), c.disks.disks), args[0])
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
