package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"udm/env"
	"udm/lvm"
	"udm/lvm/activation"
)

func lvmActivateCommand() *cobra.Command {
	var o activation.Options
	var readOnly, writable, overClones bool
	cmd := &cobra.Command{
		Use:   "activate VG[/LV] DISK…",
		Short: "Create the devices of a group's volumes, read-only by default",
		Long: `activate creates the devices of a volume group, or of one volume and what it needs,
with the names and uuids that LVM gives them. Give all disks of the group, as for
"udm lvm scan". If one of the devices cannot be created, none is. Volumes that are
active already are not changed.

Access to the disks:
  --read-only    devices and disks are only read (this is the default)
  --over-clones  the devices are writable. Changes go to clones of the disks, and are
                 lost when the group is deactivated
  --writable     the devices are writable and change the disks; nothing else may use
                 the disks meanwhile

A volume with a part on a missing disk is left out, unless --partial is given; then
reading that part fails. A volume of a type that udm does not support is left out, too.`,
		Example: `  udm lvm activate vg server.img
  udm lvm activate vg/home a.img b.img
  udm lvm activate --over-clones vg nbd://host/disk
  udm lvm activate --writable vg /dev/sdb2`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Mode = activation.ReadOnly
			if writable {
				o.Mode = activation.Writable
			} else if overClones {
				o.Mode = activation.OverClones
			}
			return runLVMActivate(cmd, args[0], args[1:], o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&readOnly, "read-only", "r", false, "make the devices read-only")
	f.BoolVarP(&writable, "writable", "w", false, "make the devices writable; this changes the disks")
	f.BoolVar(&overClones, "over-clones", false, "make the devices writable over clones; the disks do not change")
	f.BoolVar(&o.Partial, "partial", false, "also activate volumes with missing parts")
	f.BoolVarP(&o.Skip, "ignore-skip", "K", false, "also activate volumes marked to be skipped")
	cmd.MarkFlagsMutuallyExclusive("read-only", "writable", "over-clones")
	addJSON(cmd)
	return cmd
}

func runLVMActivate(cmd *cobra.Command, what string, disks []string, o activation.Options) error {
	name, volume, err := lvmName(cmd, what)
	if err != nil {
		return err
	}
	o.Volume = volume
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	return withDisks(disks, func(disks []lvm.Disk) error {
		g, err := lvmGroupOf(lvm.Scan(env.Real(), disks), name)
		if err != nil {
			return err
		}
		r, err := activation.Activate(cmd.Context(), client, g, o)
		if err != nil {
			return err
		}
		if wantsJSON(cmd) {
			return printJSON(cmd, r)
		}
		return printActivated(cmd, r)
	})
}

// lvmName parses VG or VG/LV.
func lvmName(cmd *cobra.Command, what string) (group, volume string, err error) {
	group, volume, two := strings.Cut(what, "/")
	if group == "" || two && volume == "" || strings.Contains(volume, "/") {
		return "", "", usagef(cmd, "%q is neither VG nor VG/LV", what)
	}
	return group, volume, nil
}

// lvmGroupOf returns the group with a name or UUID.
func lvmGroupOf(r *lvm.Result, name string) (found *lvm.Assembled, err error) {
	var names []string
	for _, g := range r.Groups {
		names = append(names, g.Name)
		if g.Name != name && g.ID.String() != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("there are two groups named %s; give the UUID instead of the name: udm lvm scan --json", name)
		}
		found = g
	}
	switch {
	case found != nil:
		return found, nil
	case len(names) == 0:
		return nil, fmt.Errorf("there is no group on the disks; udm lvm scan shows what is on them")
	}
	return nil, fmt.Errorf("there is no group %s on the disks, only %s", name, strings.Join(names, ", "))
}

// printActivated prints the visible devices, and what is left out.
func printActivated(cmd *cobra.Command, r *activation.Report) error {
	rows := [][]string{{"DEVICE", "VOLUME", "SIZE", "STATE"}}
	for _, d := range r.Devices {
		state := ""
		if d.ReadOnly {
			state = "read-only"
		}
		if !d.Hidden {
			rows = append(rows, []string{d.Name, r.Group + "/" + d.Volume, formatSectors(d.Sectors), state})
		}
	}
	if err := printTable(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	for _, s := range r.Skipped {
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: warning: %s/%s is left out: %s\n", r.Group, s.Volume, s.Why)
	}
	switch r.Mode {
	case activation.Writable:
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: warning: writes to the devices change %s\n", strings.Join(r.Disks, " "))
	case activation.OverClones:
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: changes are lost when the group is deactivated: udm lvm deactivate %s\n", r.Group)
	}
	return nil
}

func lvmDeactivateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "deactivate VG[/LV]",
		Short: "Remove the devices of a group's volumes; the volumes stay on their disks",
		Long: `deactivate removes the devices of a volume group, or of one volume and what only it
needs. Snapshots are removed with their origin. If one of the devices is in use, none
is removed. The volumes stay on their disks. Clones made by "udm lvm activate
--over-clones" are removed with the last device of the group.`,
		Example: `  udm lvm deactivate vg
  udm lvm deactivate vg/home`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			group, volume, err := lvmName(cmd, args[0])
			if err != nil {
				return err
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			removed, err := activation.Deactivate(cmd.Context(), client, group, volume)
			if err == nil && wantsJSON(cmd) {
				return printJSON(cmd, removed)
			}
			return err
		},
	}
	addJSON(cmd)
	return cmd
}
