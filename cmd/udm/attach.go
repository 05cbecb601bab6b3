package main

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/ctl/server/attach"
)

func attachCommand() *cobra.Command {
	var byUblk, byNBD bool
	cmd := &cobra.Command{
		Use:   "attach [DEVICE]",
		Short: "Attach a device to this machine as a block device",
		Long: `attach makes a device a block device of the kernel and prints its path. The block
device can be mounted and used like any other. If the device is attached already,
attach prints the same path. Without DEVICE, attach lists the attached devices.

The block device is one of the kernel's ublk driver if that is loaded (modprobe
ublk_drv), of Linux 6.5 or later but not 6.12.0 to 6.12.114, and the daemon has
CAP_SYS_ADMIN. Otherwise it is a loop device. The daemon must be allowed to use loop devices: it must run as root or in
the group disk. If the kernel has no loop driver, its nbd driver is used. It needs no
FUSE, but CAP_SYS_ADMIN and Linux 5.14 or later. The driver may have to be loaded
first: modprobe nbd. --ublk and --nbd ask for a driver; --ublk also takes the one of
Linux 6.1 to 6.4, which is less well tried, and that of 6.12.0 to 6.12.114, which may
stop the kernel when the daemon is killed.

An attached device counts as open. It stays attached until "udm detach". The daemon
attaches it again when it is restarted, with the same path if that is free. A file
system on a block device of ublk or nbd waits until the daemon runs again, also if it
was killed; but not on devices in its memory (mem:, snapshots with store N), which end
with it. If no daemon comes back, nbd-client -d /dev/nbdN gives its users errors. A file
system on a loop device gets I/O errors when the daemon stops, and must be mounted
again. With a keeper (udm keep) it waits as well, unless the daemon was killed.`,
		Example: `  mkfs.ext4 $(udm attach disk)
  mount $(udm attach disk) /mnt
  umount /mnt && udm detach disk`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if len(args) == 0 {
				return listAttached(cmd, client)
			}
			r := ctl.Attach{Ref: ctl.Ref{Name: args[0]}}
			switch {
			case byUblk:
				r.Driver = ctl.DriverUblk
			case byNBD:
				r.Driver = ctl.DriverNBD
			}
			a, err := client.Attach(cmd.Context(), r)
			if err != nil {
				return attachFailed(err)
			}
			if wantsJSON(cmd) {
				return printJSON(cmd, a)
			}
			fmt.Fprintln(cmd.OutOrStdout(), a.Path)
			return nil
		},
	}
	cmd.Flags().BoolVar(&byUblk, "ublk", false, "use the kernel's ublk driver")
	cmd.Flags().BoolVar(&byNBD, "nbd", false, "use the kernel's nbd driver")
	cmd.MarkFlagsMutuallyExclusive("ublk", "nbd")
	addJSON(cmd)
	return cmd
}

func listAttached(cmd *cobra.Command, client *ctl.Client) error {
	as, err := client.Attachments(cmd.Context())
	if err != nil || len(as) == 0 && !wantsJSON(cmd) {
		return err
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, as)
	}
	rows := [][]string{{"DEVICE", "PATH"}}
	for _, a := range as {
		rows = append(rows, []string{a.Name, a.Path})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func detachCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "detach DEVICE...",
		Short: "Detach devices that udm attach has attached",
		Example: `  udm detach disk
  udm detach /dev/loop0`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			var errs []error
			for _, arg := range args {
				errs = append(errs, detach(cmd, client, arg))
			}
			return errors.Join(errs...)
		},
	}
}

// attachHelper is the command that a daemon runs for work that it must not do itself.
const attachHelper = "attach-helper"

func attachHelperCommand() *cobra.Command {
	return &cobra.Command{
		Use: attachHelper, Hidden: true, Args: cobra.NoArgs,
		Short:   "Configure a block device of the kernel for the daemon",
		Example: `  echo '{"do":"refresh","driver":"loop","path":"/dev/loop0","file":"/var/lib/udm/files/dm-0"}' | udm attach-helper`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return attach.Helper(cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func detach(cmd *cobra.Command, client *ctl.Client, arg string) error {
	name := arg
	if strings.HasPrefix(arg, "/") {
		as, err := client.Attachments(cmd.Context())
		if err != nil {
			return err
		}
		name = ""
		for _, a := range as {
			if a.Path == arg {
				name = a.Name
			}
		}
		if name == "" {
			return fmt.Errorf("%s is not attached by udm; udm attach lists the attached devices", arg)
		}
	}
	return attachFailed(client.Detach(cmd.Context(), ctl.Ref{Name: name}))
}

func attachFailed(err error) error {
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("%w; udm ls lists the devices", err)
	}
	return err
}
