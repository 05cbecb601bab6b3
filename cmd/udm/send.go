package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/volume"
)

func sendCommand() *cobra.Command {
	var s volume.SendSpec
	var to destination
	cmd := &cobra.Command{
		Use:   "send DEVICE",
		Short: "Write a device, or its changes since a snapshot, to standard output or to another daemon",
		Long: `send writes the whole content of a device to standard output, or with --from only the
changes since a snapshot, as input for udm receive. Send snapshots: a device that is
written to meanwhile is not sent as of one moment, and only a snapshot can be the start
of the next stream. A snapshot that was written to since it was taken is refused as that
start.

The stream has the format of rbd export-diff and is accepted by rbd import-diff and rbd
merge-diff. A checksum of the whole stream follows its end.

To continue a stream that was cut off, give the offset that udm receive printed.

With --to the stream goes to another daemon: that of a root directory on this machine, or
one elsewhere that runs with --receive, at tls://HOST:PORT. Then --pool, --name and --base
are as for udm receive, and the same command given again continues what was cut off.`,
		Example: `  udm snapshot disk monday
  udm send monday | ssh backup udm receive --pool p
  udm snapshot disk tuesday
  udm send --from monday tuesday | ssh backup udm receive
  udm send tuesday | rbd import-diff - rbd/disk
  udm send --from monday tuesday --to tls://backup:10811 --certificates /etc/udm/tls`,
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			s.Name = args[0]
			if to.address != "" {
				return to.send(cmd, s)
			}
			if to != (destination{}) {
				return usagef(cmd, "--pool, --name, --base and --certificates need --to")
			}
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
	to.flags(cmd)
	cmd.MarkFlagsMutuallyExclusive("to", "offset")
	return cmd
}

func receiveCommand() *cobra.Command {
	var s volume.ReceiveSpec
	var where bool
	cmd := &cobra.Command{
		Use:   "receive [NAME]",
		Short: "Make a device from a stream of udm send, read from standard input",
		Long: `receive reads a stream of udm send or rbd export-diff and creates the device NAME, or a
device with the name in the stream. A whole content goes into a new volume of a pool, or
with --file into a new file. Changes since a snapshot go where that snapshot is: into its
pool, or into a store on top of it. The snapshot is the device of that name that was
received before, unless --base names it.

The device appears when the stream is complete. A stream that is cut off, damaged or
starts from another content changes nothing. The device is read-only, so that the next
changes can be received on top of it. To write, take a snapshot or make a clone of it.

With --keep the part of a stream before a cut is kept as NAME-incoming. --where prints the
offset at which to continue, and --resume continues. udm remove NAME-incoming discards it.

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
	at, err := whereCut(cmd.Context(), client, name)
	if err != nil {
		return err
	}
	if at == nil {
		return fmt.Errorf("no part of %q has been received; start from the beginning", name)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), fmt.Sprintln(*at))
	return err
}
