package main

import (
	"context"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/volume"
)

func resizeCommand() *cobra.Command {
	return resizing("", &cobra.Command{
		Use:   "resize NAME --size SIZE",
		Short: "Change the size of a device while it is in use",
		Long: `resize changes the size of a disk on a file, a clone, a volume or a pool. A clone is
extended with zeroes and cannot shrink.`,
		Example: `  udm resize vm1 --size 40G
  udm resize db --size 500G --shrink`,
	})
}

// resizing is a command that resizes an object of a kind; "": any kind.
func resizing(kind volume.Kind, cmd *cobra.Command) *cobra.Command {
	s := volume.ResizeSpec{Kind: kind}
	var size sectorsFlag
	cmd.Args, cmd.ValidArgsFunction = cobra.ExactArgs(1), completeDevices
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if size == 0 {
			return usagef(cmd, "--size is missing")
		}
		s.Name, s.Size = args[0], size.bytes()
		return operate(cmd, args, func(ctx context.Context, c *ctl.Client) error { return c.Resize(ctx, s) })
	}
	cmd.Flags().Var(&size, "size", "new size (required)")
	cmd.Flags().BoolVar(&s.Shrink, "shrink", false, "allow a smaller size")
	addJSON(cmd)
	return cmd
}

func renameCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rename NAME NEWNAME",
		Short: "Rename a device and the files that were made for it",
		Long: `rename changes the name of a device, and of its store or the files of a pool. Clients
stay connected; new clients find the device under its new name.`,
		Example:           `  udm rename vm1 web1`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return operate(cmd, args[1:], func(ctx context.Context, c *ctl.Client) error {
				return c.RenameObject(ctx, ctl.RenameObject{Name: args[0], NewName: args[1]})
			})
		},
	}
	addJSON(cmd)
	return cmd
}
