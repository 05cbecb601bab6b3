package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/volume"
)

func cloneCommand() *cobra.Command {
	var s volume.CloneSpec
	var size, diskSize sectorsFlag
	cmd := &cobra.Command{
		Use:   "clone IMAGE NAME...",
		Short: "Create writable copy-on-write clones of an image or a device",
		Long: `clone creates writable devices with the content of an image. It takes no time,
however large the image is. The image is only read. It must not change while a clone
exists. Writes go to a sparse store file for each clone, or to a pool. Any number of
clones can share an image. If one of the clones cannot be created, none is.

IMAGE is the name of a device or a file. If it is a writable device, the clones get
its present content, as with "udm snapshot".`,
		Example: `  udm clone debian.img vm1
  udm clone debian.img vm2 vm3 vm4 --disk-size 20G
  udm clone debian.img vm5 --store /srv/vm5.cow --size 2G
  udm clone debian.img vm6 --pool fast`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if s.Pool != "" && (s.Store != "" || size != 0) {
				return usagef(cmd, "--pool cannot be used with --store or --size; a clone in a pool has no store file")
			}
			if s.Store, err = absolute(s.Store); err != nil {
				return err
			}
			s.Base, s.Names, s.StoreSize, s.Size = args[0], args[1:], size.bytes(), diskSize.bytes()
			return operate(cmd, s.Names, func(ctx context.Context, c *ctl.Client) error {
				if is, err := isDevice(ctx, c, s.Base); err != nil || is {
					return errors.Join(err, c.Clone(ctx, s))
				}
				if s.Base, err = filepath.Abs(s.Base); err != nil {
					return err
				}
				return c.Clone(ctx, s)
			})
		},
	}
	cmd.Flags().StringVar(&s.Store, "store", "", "file for the changes (default ROOT/stores/NAME.cow); an existing store is reused")
	cmd.Flags().Var(&size, "size", "largest size of the store (default: enough for the whole clone)")
	cmd.Flags().Var(&diskSize, "disk-size", "size of the clone (default: that of the image)")
	cmd.Flags().StringVar(&s.Pool, "pool", "", "keep the clone in this pool")
	addJSON(cmd)
	return cmd
}

// completeImage completes file names for the first operand only.
func completeImage(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}
