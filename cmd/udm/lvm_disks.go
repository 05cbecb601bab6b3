package main

import (
	"errors"

	"github.com/spf13/cobra"

	"udm/lvm/edit"
)

func vgReduceCommand() *cobra.Command {
	var missing bool
	cmd := &cobra.Command{
		Use:   "vgreduce VG --remove DISK DISK…",
		Short: "Take disks that no volume uses out of a volume group",
		Long: `vgreduce takes the disks of --remove out of a volume group; no volume may be on them
("udm lvm pvmove" moves volumes away). They stay physical volumes, in no group. With
--removemissing it takes out the disks that are missing, if no volume was on them.` + lvmDisksHelp,
		Example: `  udm lvm vgreduce vg --remove old.img old.img new.img
  udm lvm vgreduce vg --removemissing a.img`,
		Args: cobra.MinimumNArgs(2),
	}
	remove := cmd.Flags().StringArray("remove", nil, "disk to take out; may be repeated")
	cmd.Flags().BoolVar(&missing, "removemissing", false, "take out the disks that are missing")
	cmd.MarkFlagsOneRequired("remove", "removemissing")
	cmd.MarkFlagsMutuallyExclusive("remove", "removemissing")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if missing {
			return changeGroupBy(cmd, args[0], args[1:], edit.NewWithout, func(c *lvmChange) error { return c.edit.RemoveMissing() })
		}
		names, err := diskNames(*remove)
		if err != nil {
			return err
		}
		return changeGroup(cmd, args[0], args[1:], func(c *lvmChange) (err error) {
			for _, name := range names {
				err = errors.Join(err, c.edit.RemoveDisk(name))
			}
			return err
		})
	}
	addJSON(cmd)
	return cmd
}

func pvMoveCommand() *cobra.Command {
	var from, volume string
	var to []string
	cmd := &cobra.Command{
		Use:   "pvmove VG --from DISK DISK…",
		Short: "Move what is on a disk to other disks of its volume group",
		Long: `pvmove moves the volumes on a disk, or the parts of them that are there, to other disks
of the group: to those of --to, or to any. The data is copied first, and counts at the
old place until all of it is durable at the new one: a command that was interrupted can
be repeated. The volumes that are moved may not be active. Parts of mirrors and RAID
volumes are not moved.` + lvmDisksHelp,
		Example: `  udm lvm pvmove vg --from old.img old.img new.img
  udm lvm pvmove vg -n home --from a.img --to c.img a.img b.img c.img`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from == "" {
				return usagef(cmd, "--from is missing")
			}
			names, err := diskNames(append([]string{from}, to...))
			if err != nil {
				return err
			}
			report, end := progress(cmd, "moving ")
			defer end()
			return changeGroup(cmd, args[0], args[1:], func(c *lvmChange) error {
				c.edit.Progress = report
				return c.edit.Evacuate(names[0], volume, names[1:])
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&from, "from", "", "disk to move volumes from")
	fl.StringArrayVar(&to, "to", nil, "disk to move them to; may be repeated")
	fl.StringVarP(&volume, "name", "n", "", "move only this volume and its parts")
	addJSON(cmd)
	return cmd
}

// diskNames are the names of disks as scans give them.
func diskNames(args []string) (names []string, err error) {
	for _, arg := range args {
		name, err := realDiskName(arg)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}
