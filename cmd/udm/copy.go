package main

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// intoFile is a command that copies an object into a new file on the daemon.
func intoFile(cmd *cobra.Command, do func(*ctl.Client, context.Context, ctl.ObjectFile) error) *cobra.Command {
	cmd.Args, cmd.ValidArgsFunction = cobra.ExactArgs(2), completeDevices
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := filepath.Abs(args[1])
		if err != nil {
			return err
		}
		return operate(cmd, args[:1], func(ctx context.Context, c *ctl.Client) error {
			return do(c, ctx, ctl.ObjectFile{Name: args[0], File: path})
		})
	}
	addJSON(cmd)
	return cmd
}

func flattenCommand() *cobra.Command {
	return intoFile(&cobra.Command{
		Use:   "flatten NAME FILE",
		Short: "Move a clone, volume or disk into a file of its own",
		Long: `flatten copies all data of a clone, volume or disk into a new file and makes it a
plain device on that file. It then no longer needs its image, store or pool. It can
stay in use.`,
		Example: `  udm flatten vm1 /srv/vm1.img`,
	}, (*ctl.Client).Flatten)
}

func commitCommand() *cobra.Command {
	return intoFile(&cobra.Command{
		Use:   "commit NAME FILE",
		Short: "Make a new image from a clone, volume or disk",
		Long: `commit makes a new image with the present content of a clone, volume or disk, and
makes the device a clone of that image. The device can stay in use. Its old image and
the other clones of that image do not change.`,
		Example: `  udm commit vm1 /srv/debian-with-nginx.img
  udm clone /srv/debian-with-nginx.img web1 web2`,
	}, (*ctl.Client).Commit)
}

func cpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp FROM TO",
		Short: "Copy a device into a new file, or a file into a device",
		Long: `cp copies the content of a device into a new sparse file, or a file over the start of
a device. A word without a slash that is the name of a device means the device; any
other word is a file. If the device is in use, the copy may mix data of several
moments. Copy a snapshot to avoid this.

If the command is interrupted, it removes the new file. A copy into a device
continues in the daemon.`,
		Example: `  udm cp vm1 vm1.img
  udm cp ./debian.img disk`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := filepath.Abs(args[1]) // a copy into a file locks it under this name
			if err != nil {
				return err
			}
			return operate(cmd, append(args, path), func(ctx context.Context, c *ctl.Client) error { return copyContent(ctx, c, args[0], args[1]) })
		},
	}
}

func copyContent(ctx context.Context, c *ctl.Client, from, to string) error {
	out, err := isDevice(ctx, c, from)
	if err != nil {
		return err
	}
	in, err := isDevice(ctx, c, to)
	switch {
	case err != nil:
		return err
	case in == out && in:
		return fmt.Errorf("%s and %s are devices; for a file, write ./%s", from, to, to)
	case in == out:
		return fmt.Errorf("neither %s nor %s is the name of a device; udm ls lists the devices", from, to)
	}
	r, copyTo, file := ctl.ObjectFile{Name: from}, c.CopyOut, to
	if in {
		r.Name, copyTo, file = to, c.CopyIn, from
	}
	if r.File, err = filepath.Abs(file); err != nil {
		return err
	}
	return copyTo(ctx, r)
}
