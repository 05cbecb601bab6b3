package main

import (
	"context"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/volume"
)

func snapshotCommand() *cobra.Command {
	var s volume.SnapshotSpec
	var size sectorsFlag
	cmd := &cobra.Command{
		Use:   "snapshot DEVICE NAME...",
		Short: "Take a snapshot of a device, as another device",
		Long: `snapshot creates the device NAME with the present content of DEVICE. From then on
both can be written independently. DEVICE may be in use. Its I/O waits briefly
while the snapshot is taken.

A snapshot of a thin volume takes constant time and is kept in the pool. For any
other device, a write to DEVICE first copies the old content to a store file.
DEVICE is then mapped to a new device, DEVICE-real, which has the table that
DEVICE had before.`,
		Example: `  udm snapshot disk before-upgrade
  udm snapshot disk before-upgrade --store /srv/before.cow --size 1G
  udm rollback before-upgrade        # restore it`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if s.Store, err = absolute(s.Store); err != nil {
				return err
			}
			s.Of, s.Names, s.StoreSize = args[0], args[1:], size.bytes()
			return operate(cmd, s.Names, func(ctx context.Context, c *ctl.Client) error { return c.Snapshot(ctx, s) })
		},
	}
	cmd.Flags().StringVar(&s.Store, "store", "", "file for the old content (default ROOT/stores/NAME.cow)")
	cmd.Flags().Var(&size, "size", "largest size of the store (default: enough for the whole device)")
	addJSON(cmd)
	return cmd
}
