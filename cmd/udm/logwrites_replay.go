package main

import (
	"fmt"
	"io"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/env"
	logwrites "udm/targets/log-writes"
)

// replay is a request to replay a log.
type replay struct {
	log    *logwrites.Log
	device string
	mark   string // stop after it; "" for none
	entry  int64  // stop after it; -1 for none
	flush  bool   // check after every flush
	fua    bool   // check after every FUA write
	check  string // command; "" for none

	replayed, checks int
}

func logWritesReplayCommand() *cobra.Command {
	r := &replay{}
	cmd := &cobra.Command{
		Use:   "replay LOG DEVICE",
		Short: "Replay a log onto a device, completely or up to a point",
		Long: `replay applies LOG to DEVICE, a file or block device. DEVICE should have the content
that the logged device had when the log was started. Discarded sectors become zeroes.

--check runs a shell command with DEVICE as "$1". DEVICE is flushed first. The
command runs after every flush with --every-flush, after every FUA write with
--every-fua, and otherwise once at the end. If it fails, the replay stops and fails,
and DEVICE stays as it was checked. The command must not change DEVICE; let it work
on a copy or a clone if necessary.`,
		Example: `  udm log-writes replay log.img disk.img --to-mark mkfs
  udm log-writes replay log.img disk.img --every-flush --check 'e2fsck -fn "$1"'`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (r.flush || r.fua) && r.check == "" {
				return usagef(cmd, "--every-flush and --every-fua require --check COMMAND")
			}
			var err error
			if r.device, err = filepath.Abs(args[1]); err != nil {
				return err
			}
			return withLog(args[0], func(l *logwrites.Log) error {
				r.log = l
				return r.run(cmd)
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&r.mark, "to-mark", "", "stop after the mark with this text")
	fl.Int64Var(&r.entry, "to-entry", -1, "stop after the entry with this number, as shown by ls")
	fl.BoolVar(&r.flush, "every-flush", false, "check after every flush")
	fl.BoolVar(&r.fua, "every-fua", false, "check after every write with FUA")
	fl.StringVar(&r.check, "check", "", "command that checks DEVICE; exit code 0 means good")
	cmd.MarkFlagsMutuallyExclusive("to-mark", "to-entry")
	addJSON(cmd)
	return cmd
}

func (r *replay) run(cmd *cobra.Command) error {
	for {
		last, end, err := r.part()
		if err == nil && r.check != "" && (!end || !r.flush && !r.fua || r.wants(last)) {
			err = r.runCheck(cmd, last)
		}
		if err != nil {
			return err
		}
		if end {
			return say(cmd, replayed{r.replayed, r.checks}, "%d entries replayed, %d checks\n", r.replayed, r.checks)
		}
	}
}

// replayed is the result of a replay in JSON output.
type replayed struct {
	Entries int `json:"entries"`
	Checks  int `json:"checks"`
}

// part replays entries up to the next check or the end. DEVICE is closed when it
// returns, so that the check can open it.
func (r *replay) part() (last *logwrites.Entry, end bool, err error) {
	err = withDevice(r.device, true, func(d blk.Device) error {
		for !end && (last == nil || !r.wants(last)) {
			e, err := r.log.Next()
			if err == io.EOF {
				end = true
				break
			}
			if err == nil {
				err = e.Replay(env.Real(), d)
			}
			if err != nil {
				return err
			}
			r.replayed++
			last, end = e, r.stopsAt(e)
		}
		return blk.FlushDevice(env.Real(), d)
	})
	if err == nil && end && (last == nil || !r.stopsAt(last)) {
		err = r.missing()
	}
	return last, end, err
}

// wants reports whether a check is due after e; nil means no entry.
func (r *replay) wants(e *logwrites.Entry) bool {
	return e != nil && (r.flush && e.Flush || r.fua && e.FUA)
}

func (r *replay) stopsAt(e *logwrites.Entry) bool {
	return r.mark != "" && e.Mark && e.Text == r.mark || r.entry >= 0 && e.Index == uint64(r.entry)
}

// missing is the error if the log ended before the requested point.
func (r *replay) missing() error {
	switch {
	case r.mark != "":
		return fmt.Errorf("the log has no mark %q; the whole log was replayed", r.mark)
	case r.entry >= 0:
		return fmt.Errorf("the log has no entry %d, only %d entries; the whole log was replayed", r.entry, r.log.Entries)
	}
	return nil
}

func (r *replay) runCheck(cmd *cobra.Command, last *logwrites.Entry) error {
	r.checks++
	c := exec.CommandContext(cmd.Context(), "sh", "-c", r.check, "sh", r.device)
	c.Stdout, c.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
	err := c.Run()
	switch {
	case err == nil:
		return nil
	case last == nil:
		return fmt.Errorf("the check failed after the last entry: %w", err)
	}
	return fmt.Errorf("the check failed after entry %v: %w", last, err)
}
