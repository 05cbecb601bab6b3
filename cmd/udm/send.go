package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/volume"
)

func sendCommand() *cobra.Command {
	var s volume.SendSpec
	cmd := &cobra.Command{
		Use:   "send DEVICE",
		Short: "Write a device, or its changes since a snapshot, to standard output",
		Long: `send writes the content of a device to standard output, or with --from only its changes
since a snapshot. udm receive reads it. Send snapshots: writes to the device during send
may or may not be in the stream, and the changes sent next time need a snapshot to start
from. --from refuses a snapshot that was written to.

The stream has the format of rbd export-diff, so rbd import-diff and rbd merge-diff read
it, too. A checksum follows its end.

To resume a stream that was cut off, use --offset with the number that udm receive
--where prints.`,
		Example: `  udm snapshot disk monday
  udm send monday | ssh backup udm receive --pool p
  udm snapshot disk tuesday
  udm send --from monday tuesday | ssh backup udm receive
  udm send tuesday | rbd import-diff - rbd/disk`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Name = args[0]
			out := cmd.OutOrStdout()
			if f, ok := out.(*os.File); ok && isTerminal(f) {
				return errors.New("the stream is binary; write it to a pipe or a file")
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			return follow(cmd, client, args, func(ctx context.Context, c *ctl.Client) error { return c.Send(ctx, s, out) })
		},
	}
	cmd.Flags().StringVar(&s.From, "from", "", "send the changes since this `SNAPSHOT`, or since base: the image that the device is based on")
	cmd.Flags().Uint64Var(&s.Offset, "offset", 0, "skip the first `BYTES` of the stream")
	return cmd
}

func receiveCommand() *cobra.Command {
	var s volume.ReceiveSpec
	var where bool
	cmd := &cobra.Command{
		Use:   "receive [NAME]",
		Short: "Make a device from a stream of udm send, read from standard input",
		Long: `receive reads a stream of udm send, or of rbd export-diff, and makes the device NAME from
it; without NAME it has the name in the stream. The complete content of a device goes
into a new volume of a pool, or with --file into a new file. Changes since a snapshot are
stored beside that snapshot: in the same pool, or in a store on top of it. The snapshot
is the received device with its name, unless --base names another.

The device appears when the stream is complete. A stream that is cut off, damaged or
based on different content changes nothing. The device is read-only, so that later
changes can be received on top of it; to write, take a snapshot of it or clone it.

With --keep the received part of a stream that is cut off stays, as NAME-incoming.
--where prints the offset at which to resume, and --resume resumes. udm remove
NAME-incoming discards the part.

Streams of rbd have no checksum and need --unsealed.`,
		Example: `  udm send --from monday tuesday | ssh backup udm receive
  udm receive --pool p --keep monday < monday.diff
  udm send --offset $(ssh backup udm receive --where monday) monday | ssh backup udm receive --resume monday
  rbd export-diff rbd/disk@monday - | udm receive --pool p --unsealed`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if len(args) > 0 {
				s.Name = args[0]
			}
			if s.File, err = absolute(s.File); err != nil {
				return err
			}
			if strings.Contains(s.Base, "/") {
				if s.Base, err = filepath.Abs(s.Base); err != nil {
					return err
				}
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if where {
				return printWhere(cmd, client, s.Name)
			}
			return receive(cmd, client, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Pool, "pool", "", "`POOL` for a new volume")
	f.StringVar(&s.File, "file", "", "new `FILE`")
	f.StringVar(&s.Base, "base", "", "the `DEVICE` or image that the stream is based on")
	f.BoolVar(&s.Unsealed, "unsealed", false, "accept a stream without a checksum")
	f.BoolVar(&s.Keep, "keep", false, "keep the received part of a stream that is cut off")
	f.BoolVar(&s.Resume, "resume", false, "resume a stream that was cut off")
	f.BoolVar(&where, "where", false, "print the offset at which udm send must resume")
	cmd.MarkFlagsMutuallyExclusive("pool", "file", "base", "resume", "where")
	addJSON(cmd)
	return cmd
}

func receive(cmd *cobra.Command, client *ctl.Client, s volume.ReceiveSpec) error {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && isTerminal(f) {
		return errors.New("standard input is a terminal; pipe the output of udm send into it")
	}
	var got volume.Received
	err := follow(cmd, client, []string{s.Name}, func(ctx context.Context, c *ctl.Client) (err error) {
		got, err = c.Receive(ctx, s, in)
		return err
	})
	if err != nil || !wantsJSON(cmd) {
		return err
	}
	return printJSON(cmd, got)
}

func printWhere(cmd *cobra.Command, client *ctl.Client, name string) error {
	objects, err := client.Objects(cmd.Context())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(objects, func(o volume.Object) bool { return o.Name == name+"-incoming" && o.Incoming != nil })
	if i < 0 {
		return fmt.Errorf("no part of %q has been received; start from the beginning", name)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), fmt.Sprintln(*objects[i].Incoming))
	return err
}
