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
		Short: "Write what a device holds, or has changed since a snapshot, to standard output",
		Long: `send writes all that a device holds to standard output, or with --from only what it
has changed since a snapshot, for udm receive there or here. Send a snapshot: what is
written to a device that is sent may be in it or not, and only a snapshot can be the
beginning of what is sent next. A snapshot that was written to since it was taken is
refused as that.

The stream is that of rbd export-diff, which rbd import-diff and rbd merge-diff take,
too. A checksum of all of it is behind its end.

A stream that was cut off is gone on with from the byte that udm receive has told.`,
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
				return errors.New("what is sent is no text for a terminal; write it into a pipe or file")
			}
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			return follow(cmd, client, args, func(ctx context.Context, c *ctl.Client) error { return c.Send(ctx, s, out) })
		},
	}
	cmd.Flags().StringVar(&s.From, "from", "", "send what has changed since this `SNAPSHOT`, or base: the image that the device stands on")
	cmd.Flags().Uint64Var(&s.Offset, "offset", 0, "leave out the first `BYTES` of the stream")
	return cmd
}

func receiveCommand() *cobra.Command {
	var s volume.ReceiveSpec
	var where bool
	cmd := &cobra.Command{
		Use:   "receive [NAME]",
		Short: "Make a device of what udm send has written, from standard input",
		Long: `receive reads a stream of udm send, or of rbd export-diff, and makes the device NAME of
it, or one with the name that the stream tells. All that a device holds goes into a new
volume of a pool, or with --file into a new file. What has changed since a snapshot
goes where that is: into the same pool, or into a store on top of it. The snapshot
is the device with its name that was received before, unless --base names it.

The device appears when the stream is whole. A stream that is cut off or damaged, or
begins at another content than the one here, changes nothing. Nobody can write to the
device, so that what has changed since can be received on top of it; take a snapshot
of it, or clone it, to write.

With --keep a part of a stream that is cut off stays, as NAME-incoming. --where tells
where to go on, and --resume goes on. udm remove NAME-incoming gives it up.

What rbd has written has no checksum, and is taken with --unsealed only.`,
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
	f.StringVar(&s.Base, "base", "", "the `DEVICE` or image that the stream begins at")
	f.BoolVar(&s.Unsealed, "unsealed", false, "take a stream without a checksum")
	f.BoolVar(&s.Keep, "keep", false, "keep what has come of a stream that is cut off")
	f.BoolVar(&s.Resume, "resume", false, "go on with a stream that was cut off")
	f.BoolVar(&where, "where", false, "tell the byte from which on a stream is to be sent again")
	cmd.MarkFlagsMutuallyExclusive("pool", "file", "base", "resume", "where")
	addJSON(cmd)
	return cmd
}

func receive(cmd *cobra.Command, client *ctl.Client, s volume.ReceiveSpec) error {
	in := cmd.InOrStdin()
	if f, ok := in.(*os.File); ok && isTerminal(f) {
		return errors.New("there is nothing to receive; give it the output of udm send")
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
		return fmt.Errorf("nothing of %q is here; receive it from the beginning", name)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), fmt.Sprintln(*objects[i].Incoming))
	return err
}
