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
its present content, as with "udm snapshot".

With --lazy a clone is a whole copy in a file of its own. It is in use at once, while its
source is copied in the background, and needs the source no more once all is here:
"udm ls" shows how far it is, and the clone becomes a plain disk. IMAGE may then be any
disk that a table can name, such as one at an NBD or web server, but not a writable
device. If the source fails meanwhile, so do reads and writes of what is not here yet;
copying goes on when the source is back. The message hydration_threshold N sets how many
regions of 64 KiB are copied at a time, 0 none.`,
		Example: `  udm clone debian.img vm1
  udm clone debian.img vm2 vm3 vm4 --disk-size 20G
  udm clone debian.img vm5 --store /srv/vm5.cow --size 2G
  udm clone debian.img vm6 --pool fast
  udm clone --lazy nbd://images/debian vm7
  udm clone --lazy https://example.org/debian.img vm8 --disk-size 20G
  udm dmsetup message vm8 0 hydration_threshold 8`,
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeImage,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if s.Pool != "" && (s.Store != "" || size != 0) {
				return usagef(cmd, "--pool cannot be used with --store or --size; a clone in a pool has no store file")
			}
			if s.Lazy && (s.Store != "" || size != 0 || s.Pool != "") {
				return usagef(cmd, "--lazy cannot be used with --store, --size or --pool; a lazy clone is a file of its own")
			}
			if s.Store, err = absolute(s.Store); err != nil {
				return err
			}
			s.Base, s.Names, s.StoreSize, s.Size = args[0], args[1:], size.bytes(), diskSize.bytes()
			return operate(cmd, s.Names, func(ctx context.Context, c *ctl.Client) error {
				if is, err := isDevice(ctx, c, s.Base); err != nil || is {
					return errors.Join(err, c.Clone(ctx, s))
				}
				path := filepath.Abs
				if s.Lazy {
					path = diskName
				}
				if s.Base, err = path(s.Base); err != nil {
					return err
				}
				return c.Clone(ctx, s)
			})
		},
	}
	cmd.Flags().StringVar(&s.Store, "store", "", "file for the changes (default ROOT/stores/NAME.cow); an existing store is reused")
	cmd.Flags().Var(&size, "size", "largest size of the store (default: enough for the whole clone)")
	cmd.Flags().Var(&diskSize, "disk-size", "size of the clone (default: that of the image)")
	cmd.Flags().BoolVar(&s.Lazy, "lazy", false, "copy the image in the background while the clone is in use")
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
