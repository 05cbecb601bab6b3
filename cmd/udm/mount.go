package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func mountCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mount [DIR]",
		Short: "Show every active device as a file in a directory",
		Long: `mount shows every device with a table as a file in an existing directory. The file
has the name and the size of the device. This is for programs that can use files
but not NBD. The only permission it needs is to use FUSE. Without DIR, mount lists
the directories in use.

Only the user who runs the daemon can use the files. An open file counts as an open
of its device. fsync makes written data durable. Punching a hole discards. cp and
tar -S skip the unwritten parts of volumes, clones and snapshots.

The mount lasts until "udm unmount". The daemon restores it when it is restarted.`,
		Example: `  mkdir -p ~/disks && udm mount ~/disks
  mkfs.ext4 ~/disks/disk
  udm unmount ~/disks`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if len(args) == 0 {
				return listMounts(cmd, client)
			}
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			return client.Mount(cmd.Context(), ctl.Mount{Dir: dir})
		},
	}
	addJSON(cmd)
	return cmd
}

func listMounts(cmd *cobra.Command, client *ctl.Client) error {
	ms, err := client.Mounts(cmd.Context())
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, ms)
	}
	for _, m := range ms {
		fmt.Fprintln(cmd.OutOrStdout(), m.Dir)
	}
	return nil
}

func unmountCommand() *cobra.Command {
	var lazy bool
	cmd := &cobra.Command{
		Use:     "unmount DIR",
		Aliases: []string{"umount"},
		Short:   "End a mount made by udm mount",
		Example: `  udm unmount ~/disks
  udm unmount --lazy ~/disks     # even if files are open`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeMounts,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			err = client.Unmount(cmd.Context(), ctl.Mount{Dir: dir, Lazy: lazy})
			switch {
			case errors.Is(err, syscall.EBUSY):
				return fmt.Errorf("%w; close the files, or add --lazy", err)
			case errors.Is(err, syscall.ENXIO):
				return fmt.Errorf("%w; udm mount lists the mounts", err)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "unmount even if files are open; programs that use them get errors")
	return cmd
}

func completeMounts(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := clientOf(cmd)
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer client.Close()
	ms, _ := client.Mounts(cmd.Context())
	var dirs []string
	for _, m := range ms {
		dirs = append(dirs, m.Dir)
	}
	return dirs, cobra.ShellCompDirectiveNoFileComp
}
