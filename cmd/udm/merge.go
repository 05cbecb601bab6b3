package main

import (
	"context"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// about is a command that has the daemon do something with one object.
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
		Long: `merge copies what was written to a clone to its image. The clone remains, as a device
on the image. An image that other clones or volumes stand on is not changed: commit
the clone into a new image instead. A snapshot is merged as by "udm rollback".

If the command is interrupted, the daemon goes on with the merge, also after it was
restarted. Run "udm merge NAME" again to wait for the end.`,
		Example: `  udm merge vm1
  udm merge before-upgrade`,
	}, (*ctl.Client).Merge)
}

func rollbackCommand() *cobra.Command {
	return about(&cobra.Command{
		Use:   "rollback SNAPSHOT",
		Short: "Bring a device back to what a snapshot of it holds",
		Long: `rollback makes the content of a snapshot that of the device that it was taken of. The
device shows it at once and may stay in use. A snapshot with a store is merged and
goes away; one in a pool stays. What was written to the device since is lost.`,
		Example: `  udm rollback before-upgrade`,
	}, (*ctl.Client).Rollback)
}

func resetCommand() *cobra.Command {
	return about(&cobra.Command{
		Use:   "reset CLONE",
		Short: "Make a clone what its image is",
		Long: `reset takes away everything that was written to a clone, with a store or in a pool.
It takes no time, and the clone may stay in use.`,
		Example: `  udm reset vm1`,
	}, (*ctl.Client).Reset)
}
