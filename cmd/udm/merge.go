package main

import (
	"context"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// about is a command that runs an operation on one object.
func about(cmd *cobra.Command, do func(*ctl.Client, context.Context, ctl.Object) error) *cobra.Command {
	cmd.Args, cmd.ValidArgsFunction = cobra.ExactArgs(1), completeDevices
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return operate(cmd, args, func(ctx context.Context, c *ctl.Client) error { return do(c, ctx, ctl.Object{Name: args[0]}) })
	}
	addJSON(cmd)
	return cmd
}

func mergeCommand() *cobra.Command {
	return about(&cobra.Command{
		Use:   "merge NAME",
		Short: "Merge a clone into its image, or a snapshot into its origin",
		Long: `merge copies the changes of a clone to its image. The clone becomes a plain device on
the image. If other clones or volumes depend on the image, it is not changed: commit
the clone into a new image instead. Merging a snapshot is the same as "udm rollback".

If the command is interrupted, the daemon continues the merge, even after a restart.
Run "udm merge NAME" again to wait for the end.`,
		Example: `  udm merge vm1
  udm merge before-upgrade`,
	}, (*ctl.Client).Merge)
}

func rollbackCommand() *cobra.Command {
	return about(&cobra.Command{
		Use:   "rollback SNAPSHOT",
		Short: "Restore a device to the content of a snapshot",
		Long: `rollback restores a device to the content of a snapshot of it. The device shows that
content at once and can stay in use. Changes made to the device since the snapshot
are lost. A snapshot with a store is merged and removed; one in a pool stays.`,
		Example: `  udm rollback before-upgrade`,
	}, (*ctl.Client).Rollback)
}

func resetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reset CLONE...",
		Short: "Discard all changes of clones",
		Long: `reset discards everything that was written to a clone, whether its changes are in a
store or in a pool. It takes no time, and the clone can stay in use. Several clones
are reset together: all of them or, if there is an error, none.`,
		Example: `  udm reset vm1
  udm reset vm1 vm2 vm3`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return operate(cmd, args, func(ctx context.Context, c *ctl.Client) error {
				return c.Reset(ctx, ctl.Objects{Names: args})
			})
		},
	}
	addJSON(cmd)
	return cmd
}
