package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func traceCommand() *cobra.Command {
	var in ctl.Trace
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "trace DEVICE",
		Short: "Follow the I/O of a device on its way through the stack",
		Long: `trace prints what happens to each I/O of a device, and of the mapped devices that it stands
on, until Ctrl-C. The columns are those of blkparse: the number of the device, the number of
the piece, the time in seconds, the step, the operation, and the range in sectors. The steps:

  Q  queued: the I/O, or the piece of it that goes to one target, came to the target
  D  issued: the target sent it to the device and the sector behind ->
  C  completed: with the error, or 0, and the time since Q
  R  requeued: the target pushed it back; it is queued again after a suspend, and fails without

In the operation, R is a read, W a write, F a flush, D a discard, Z a write of zeroes; F before
W a flush before the write, F behind it a durable write. A line that begins with # names a
device, or says how many steps were lost because they were not read in time. What waits for a
resume or for its limits is not queued yet. With --slower, the steps of an I/O are printed
together when it has completed. Devices that are not traced are not slowed down.`,
		Example: `  udm trace web1
  udm trace web1 --only --ops read,flush       # without the devices below
  udm trace web1 --slower 10ms --for 1m
  udm trace web1 --json | jq 'select(.error)'`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			in.Name = args[0]
			if limit < 0 || in.Slower < 0 {
				return usagef(cmd, "--for and --slower must not be negative")
			}
			return runTrace(cmd, in, limit)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&in.Only, "only", false, "leave out the devices below")
	f.StringSliceVar(&in.Ops, "ops", nil, "follow only these operations: read, write, flush, discard, write_zeroes")
	f.DurationVar(&in.Slower, "slower", 0, "follow only what takes at least this time, such as 10ms")
	f.DurationVar(&limit, "for", 0, "end after this time, such as 30s")
	addJSON(cmd)
	return cmd
}

func runTrace(cmd *cobra.Command, r ctl.Trace, limit time.Duration) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	events, err := client.Trace(ctx, r)
	if err != nil {
		return explain(r.Name, found(r.Name, err))
	}
	if limit > 0 {
		defer time.AfterFunc(limit, cancel).Stop()
	}
	lines := json.NewEncoder(cmd.OutOrStdout())
	p := tracePrinter{w: cmd.OutOrStdout(), named: make(map[ctl.Number]bool)}
	for e, err := range events {
		switch {
		case err != nil:
			return err
		case wantsJSON(cmd):
			err = lines.Encode(e)
		default:
			err = p.print(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// tracePrinter prints a trace as text.
type tracePrinter struct {
	w     io.Writer
	began time.Duration // the time of the first event; 0: there was none
	named map[ctl.Number]bool
}

var traceLetters = map[ctl.TraceStep]string{ctl.TraceQueued: "Q", ctl.TraceIssued: "D", ctl.TraceCompleted: "C", ctl.TraceRequeued: "R"}

func (p *tracePrinter) print(e ctl.TraceEvent) error {
	if e.Step == ctl.TraceLost {
		_, err := fmt.Fprintf(p.w, "# %d steps lost\n", e.Lost)
		return err
	}
	if p.began == 0 {
		p.began = e.Time
	}
	if !p.named[*e.Number] {
		p.named[*e.Number] = true
		if _, err := fmt.Fprintf(p.w, "# %s is %s\n", e.Number, printable(e.Name)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(p.w, "%-8s %6d %14.9f  %s %3s %s\n", e.Number, e.ID, (e.Time - p.began).Seconds(), traceLetters[e.Step], traceOp(e), traceRest(e))
	return err
}

// traceRest is what blkparse prints behind the operation.
func traceRest(e ctl.TraceEvent) string {
	text := fmt.Sprintf("%d + %d", e.Sector, e.Sectors)
	switch e.Step {
	case ctl.TraceIssued:
		if e.To == nil { // a device of the target's own
			break
		}
		text += fmt.Sprintf(" -> %s %d", e.To, e.ToSector)
	case ctl.TraceCompleted:
		why := "0"
		if e.Error != "" {
			why = e.Error
		}
		return fmt.Sprintf("%s [%s] %s", text, why, e.Took.Round(100*time.Nanosecond))
	}
	return text + " [" + e.Target + "]"
}

// traceOp is an operation in letters.
func traceOp(e ctl.TraceEvent) string {
	letters := map[string]string{"read": "R", "write": "W", "flush": "F", "discard": "D", "write_zeroes": "Z"}[e.Op]
	if e.Op == "write" && slices.Contains(e.Flags, "preflush") {
		letters = "F" + letters
	}
	if slices.Contains(e.Flags, "fua") {
		letters += "F"
	}
	return letters
}
