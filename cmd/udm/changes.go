package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/ctl"
	"udm/volume"
)

func changesCommand() *cobra.Command {
	var since string
	var checkpoints bool
	cmd := &cobra.Command{
		Use:   "changes DEVICE",
		Short: "List the blocks of a device that changed since a snapshot or an era",
		Long: `changes lists the parts of a device that may differ from a snapshot of it: every
difference, and also blocks that were rewritten with the same data. It reads only
metadata, and both devices may be in use. Without --since it lists the changes since the
image that the device is based on, or without an image everything that was written.

A volume can be compared with any other volume of its pool. Writes before the command are
in the list, and perhaps later ones. For the changes up to one moment, take a snapshot
and list its changes.

The checkpoints of a device of the target era are its eras: --since 7 lists what was written
in era 7 or later. The message checkpoint begins a new era.

Addresses are in sectors of 512 bytes. A part of kind zero reads as zeroes. NBD clients
see the same list as the metadata context qemu:dirty-bitmap:SNAPSHOT.`,
		Example: `  udm snapshot disk monday
  udm changes disk --since monday
  udm changes tuesday --since monday --json
  udm dmsetup message disk 0 checkpoint && udm changes disk --since 7   # an era device
  udm changes disk --checkpoints           # lists the names that --since accepts`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if checkpoints {
				return printCheckpoints(cmd, client, args[0])
			}
			return printChanges(cmd, client, volume.ChangesSpec{Name: args[0], Since: since})
		},
	}
	cmd.Flags().StringVar(&since, "since", "", "the `SNAPSHOT`, or an era, or base: the image that the device is based on")
	cmd.Flags().BoolVar(&checkpoints, "checkpoints", false, "list the names that --since accepts")
	addJSON(cmd)
	return cmd
}

func printCheckpoints(cmd *cobra.Command, client *ctl.Client, name string) error {
	names, err := client.Checkpoints(cmd.Context(), ctl.Object{Name: name})
	if err != nil || wantsJSON(cmd) {
		return printUnless(cmd, err, names)
	}
	for _, n := range names {
		fmt.Fprintln(cmd.OutOrStdout(), n)
	}
	return nil
}

func printUnless(cmd *cobra.Command, err error, v any) error {
	if err != nil {
		return err
	}
	return printJSON(cmd, v)
}

func printChanges(cmd *cobra.Command, client *ctl.Client, s volume.ChangesSpec) error {
	c, err := allChanges(cmd.Context(), client, s)
	if err != nil || wantsJSON(cmd) {
		return printUnless(cmd, err, c)
	}
	rows, sum := [][]string{{"SECTOR", "SECTORS", "KIND"}}, uint64(0)
	for _, e := range c.Extents {
		kind := "data"
		if e.Zero {
			kind = "zero"
		}
		sum += e.Sectors
		rows = append(rows, []string{strconv.FormatUint(e.Sector, 10), strconv.FormatUint(e.Sectors, 10), kind})
	}
	if len(rows) > 1 {
		if err := printTable(cmd.OutOrStdout(), rows); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s of %s\n", formatBytes(sum*blk.SectorSize), formatBytes(c.Sectors*blk.SectorSize))
	return err
}

// allChanges requests the changes part by part.
func allChanges(ctx context.Context, client *ctl.Client, s volume.ChangesSpec) (all volume.Changes, err error) {
	for {
		c, err := client.Changes(ctx, s)
		if err != nil {
			return all, err
		}
		if s.Of == "" {
			all = c
		} else {
			all.Extents, all.Next = append(all.Extents, c.Extents...), c.Next
		}
		if c.Next == c.Sectors {
			return all, nil
		}
		s.Sector, s.Of = c.Next, c.Of
	}
}
