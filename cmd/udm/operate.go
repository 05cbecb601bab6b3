package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"udm/ctl"
	"udm/volume"
)

// operate runs an operation on objects, shows its progress if it takes long, and
// prints the resulting objects for programs.
func operate(cmd *cobra.Command, names []string, do func(context.Context, *ctl.Client) error) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := follow(cmd, client, names, do); err != nil || !wantsJSON(cmd) {
		return err
	}
	all, err := list(cmd.Context(), client, "")
	if err != nil {
		return err
	}
	made := slices.DeleteFunc(all, func(d listed) bool { return !slices.Contains(names, d.Name) })
	if len(names) == 1 && len(made) == 1 {
		return printJSON(cmd, made[0])
	}
	return printJSON(cmd, made)
}

// watchEvery is the interval at which progress is read.
const watchEvery = 200 * time.Millisecond

// follow waits for an operation on objects and shows a bar if it takes long.
func follow(cmd *cobra.Command, client *ctl.Client, names []string, do func(context.Context, *ctl.Client) error) error {
	ctx := cmd.Context()
	done := make(chan error, 1)
	go func() { done <- do(ctx, client) }()
	b := operationBar{w: cmd.ErrOrStderr(), names: names}
	for {
		select {
		case err := <-done:
			b.end(err)
			if ctx.Err() != nil {
				return errors.New("interrupted; udm operations shows whether it continues in the daemon")
			}
			return err
		case <-time.After(watchEvery):
			b.look(ctx, client)
		}
	}
}

// operationBar is a bar for the long part of an operation.
type operationBar struct {
	w     io.Writer
	names []string      // of its objects
	all   *mpb.Progress // nil until there is something to show
	bar   *mpb.Bar
}

func (b *operationBar) look(ctx context.Context, client *ctl.Client) {
	ops, err := client.Operations(ctx)
	i := slices.IndexFunc(ops, func(op volume.Operation) bool { return op.Total > 0 && slices.ContainsFunc(op.Objects, b.isNamed) })
	if err != nil || i < 0 {
		return
	}
	if b.all == nil {
		b.all = mpb.New(mpb.WithOutput(b.w), mpb.WithWidth(60))
		b.bar = b.all.AddBar(0, mpb.PrependDecorators(decor.Name(ops[i].Kind+" of "+b.names[0])), mpb.AppendDecorators(decor.Percentage()))
	}
	b.bar.SetTotal(int64(ops[i].Total), false)
	b.bar.SetCurrent(int64(ops[i].Done))
}

func (b *operationBar) isNamed(object string) bool { return slices.Contains(b.names, object) }

func (b *operationBar) end(err error) {
	switch {
	case b.all == nil:
		return
	case err != nil:
		b.bar.Abort(false)
	default:
		b.bar.SetTotal(-1, true)
	}
	b.all.Wait()
}

// isDevice reports whether a word on the command line names a device. A word with a
// slash is a file.
func isDevice(ctx context.Context, client *ctl.Client, word string) (bool, error) {
	if strings.Contains(word, "/") {
		return false, nil
	}
	_, err := client.Device(ctx, ctl.Query{Ref: ctl.Ref{Name: word}})
	if errors.Is(err, syscall.ENXIO) {
		return false, nil
	}
	return err == nil, err
}

// absolute is the absolute path of an optional file.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}

func operationsCommand() *cobra.Command {
	var cancel string
	cmd := &cobra.Command{
		Use:   "operations",
		Short: "List operations in progress, or cancel one",
		Long: `operations lists the operations in progress on clones, snapshots, pools and volumes.
An operation that could not be completed is retried every few seconds, and when the
daemon is started.

With --cancel an operation is undone if that is still possible; otherwise the command
says what it waits for. A copy into a device stops where it is; the device then holds
a part of the copied data.`,
		Example: `  udm operations
  udm operations --json
  udm operations --cancel 5f3c09aa12e4b871`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			if cancel != "" {
				return client.CancelOperation(cmd.Context(), ctl.Operation{ID: cancel})
			}
			ops, err := client.Operations(cmd.Context())
			if err != nil {
				return err
			}
			if wantsJSON(cmd) {
				return printJSON(cmd, ops)
			}
			rows := [][]string{{"ID", "OPERATION", "OF", "DONE", "PROBLEM"}}
			for _, op := range ops {
				done := fmt.Sprintf("%d of %d steps", op.Steps, op.All)
				if op.Total > 0 {
					done += " " + bar(op.Done, op.Total)
				}
				rows = append(rows, []string{op.ID, op.Kind, strings.Join(op.Objects, " "), done, op.Problem})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().StringVar(&cancel, "cancel", "", "undo the operation with this `ID`")
	addJSON(cmd)
	return cmd
}
