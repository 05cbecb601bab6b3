package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func exportCommand() *cobra.Command {
	var r ctl.Export
	var mode, poll string
	cmd := &cobra.Command{
		Use:   "export [DEVICE --vhost-user SOCKET]",
		Short: "Give a device to a virtual machine, by vhost-user",
		Long: `export serves a device on a Unix socket to which QEMU and other virtual machine
monitors connect by vhost-user-blk. The daemon takes the guest's requests directly
from its memory, which is much faster than NBD. The memory must be shared:
docs/virtual-machines.md lists the options of each monitor. Without DEVICE, export
lists the exports.

One virtual machine at a time can use a socket. The serial number of its disk is the
name of the device. The guest sees a new size of the device at once. The device is
open while a virtual machine is connected. While the device is suspended, the guest
waits.

A queue whose requests follow each other closely is watched for a moment before its
thread sleeps, which saves wake-ups but takes a processor: --poll says how long, and
auto does so only where processors are spare.

The export lasts until "udm unexport", or until the device is removed. The daemon
restores it when it is restarted; monitors reconnect if they are configured to.

The socket belongs to the daemon's user. --mode 660 gives access to the group of the
socket; a directory with the setgid bit gives the socket the directory's group.`,
		Example: `  udm export disk --vhost-user /run/udm/disk.sock
  udm export disk --vhost-user /run/udm/disk.sock --queues 2 --read-only
  udm export disk --vhost-user /run/udm/disk.sock --poll 32us
  udm export --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if len(args) == 0 {
				return listExported(cmd, client)
			}
			r.Name = args[0]
			if err := completeExport(&r, mode, poll); err != nil {
				return err
			}
			x, err := client.Export(cmd.Context(), r)
			if err != nil {
				return attachFailed(err)
			}
			if wantsJSON(cmd) {
				return printJSON(cmd, x)
			}
			fmt.Fprintln(cmd.OutOrStdout(), x.Path)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&r.Path, "vhost-user", "", "path of the socket")
	f.IntVar(&r.Queues, "queues", 0, "number of queues that a guest may use; 0: one for each processor, at most 8")
	f.StringVar(&poll, "poll", "auto", "how long to watch a queue that is busy before sleeping: auto, off, or a time such as 32us; costs a processor")
	f.BoolVar(&r.ReadOnly, "read-only", false, "make the export read-only")
	f.StringVar(&mode, "mode", "600", "permissions of the socket, octal")
	addJSON(cmd)
	return cmd
}

// completeExport checks the flags and fills in the request.
func completeExport(r *ctl.Export, mode, poll string) (err error) {
	if r.Path == "" {
		return errors.New("--vhost-user SOCKET is missing")
	}
	if r.Path, err = filepath.Abs(r.Path); err != nil {
		return err
	}
	m, err := strconv.ParseUint(mode, 8, 32)
	if err != nil {
		return fmt.Errorf("--mode %s is not octal; use 600, 660 or 666", mode)
	}
	r.Mode = uint32(m)
	r.Poll, err = pollTime(poll)
	return err
}

// pollTime returns the time in µs, as in [ctl.Export].
func pollTime(text string) (int, error) {
	switch text {
	case "auto":
		return 0, nil
	case "off":
		return -1, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Microsecond {
		return 0, fmt.Errorf("--poll %s is not a time; use auto, off, or a time such as 32us", text)
	}
	return int(d.Microseconds()), nil
}

func listExported(cmd *cobra.Command, client *ctl.Client) error {
	xs, err := client.Exported(cmd.Context())
	if err != nil || len(xs) == 0 && !wantsJSON(cmd) {
		return err
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, xs)
	}
	rows := [][]string{{"DEVICE", "SOCKET", "QUEUES", "MODE", "PROBLEM"}}
	for _, x := range xs {
		queues, mode := "", ""
		if x.Queues > 0 {
			queues = fmt.Sprint(x.Queues)
		}
		if x.ReadOnly {
			mode = "read-only"
		}
		rows = append(rows, []string{x.Name, x.Path, queues, mode, x.Problem})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func unexportCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "unexport SOCKET|DEVICE...",
		Short: "End exports made by udm export",
		Long: `unexport ends the export at a socket, or all exports of a device. It refuses if a
virtual machine uses the export. With --force it disconnects the virtual machine
after its requests have completed.`,
		Example: `  udm unexport /run/udm/disk.sock
  udm unexport --force disk`,
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
				errs = append(errs, endExports(cmd, client, arg, force))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "disconnect the virtual machine that uses it")
	return cmd
}

// endExports ends the export of a socket, or those of a device.
func endExports(cmd *cobra.Command, client *ctl.Client, arg string, force bool) error {
	xs, err := client.Exported(cmd.Context())
	if err != nil {
		return err
	}
	path := arg
	if strings.Contains(arg, "/") {
		if path, err = filepath.Abs(arg); err != nil {
			return err
		}
	}
	var errs []error
	found := false
	for _, x := range xs {
		if x.Name == arg || x.Path == path {
			found = true
			errs = append(errs, client.Unexport(cmd.Context(), ctl.Unexport{Path: x.Path, Force: force}))
		}
	}
	if !found {
		return fmt.Errorf("%s is not exported: %w; udm export lists the exports", arg, syscall.ENXIO)
	}
	return errors.Join(errs...)
}
