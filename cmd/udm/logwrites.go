package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	logwrites "udm/targets/log-writes"
)

func logWritesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "log-writes",
		Short: "List and replay the logs of log-writes: ls, replay",
		Long: `The log-writes commands read logs written by the target log-writes of udm or Linux,
or by the driver blklogwrites of qemu. Replay a log, up to any point, onto a copy of
the disk's earlier content. The copy then holds what a power failure at that point
would have left.`,
		Example: `  udm log-writes ls log.img
  udm log-writes replay log.img disk.img --every-flush --check 'e2fsck -fn "$1"'`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(logWritesLsCommand(), logWritesReplayCommand())
	return cmd
}

// withLog opens a log for f.
func withLog(path string, f func(*logwrites.Log) error) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	l, err := logwrites.OpenLog(r)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return f(l)
}

// entries calls f for each entry until it fails.
func entries(l *logwrites.Log, f func(*logwrites.Entry) error) error {
	for {
		e, err := l.Next()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = f(e)
		}
		if err != nil {
			return err
		}
	}
}

func logWritesLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls LOG",
		Short: "List the entries of a log, in sectors of 512 bytes",
		Example: `  udm log-writes ls log.img
  udm log-writes ls --json log.img`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withLog(args[0], func(l *logwrites.Log) error {
				if wantsJSON(cmd) {
					return logWritesJSON(cmd, l)
				}
				return logWritesTable(cmd.OutOrStdout(), l)
			})
		},
	}
	addJSON(cmd)
	return cmd
}

func logWritesTable(out io.Writer, l *logwrites.Log) error {
	w := bufio.NewWriter(out)
	row := func(entry, kind, sector, sectors, mark string) error {
		line := fmt.Sprintf("%8s  %-10s %12s %9s  %s", entry, kind, sector, sectors, mark)
		_, err := fmt.Fprintln(w, strings.TrimRight(line, " "))
		return err
	}
	err := row("ENTRY", "KIND", "SECTOR", "SECTORS", "MARK")
	if err != nil {
		return err
	}
	err = entries(l, func(e *logwrites.Entry) error {
		sector, sectors := "", ""
		if e.Sectors > 0 {
			sector, sectors = strconv.FormatUint(e.Sector, 10), strconv.FormatUint(e.Sectors, 10)
		}
		text := ""
		if e.Mark {
			text = strconv.Quote(e.Text)
		}
		return row(strconv.FormatUint(e.Index, 10), e.Kind(), sector, sectors, text)
	})
	return errors.Join(err, w.Flush())
}

// loggedEntry is an entry in JSON output, in sectors of 512 bytes.
type loggedEntry struct {
	Entry   uint64 `json:"entry"`
	Kind    string `json:"kind"`
	Sector  uint64 `json:"sector"`
	Sectors uint64 `json:"sectors"`
	Mark    string `json:"mark,omitempty"`
}

func logWritesJSON(cmd *cobra.Command, l *logwrites.Log) error {
	out := []loggedEntry{}
	err := entries(l, func(e *logwrites.Entry) error {
		out = append(out, loggedEntry{e.Index, e.Kind(), e.Sector, e.Sectors, e.Text})
		return nil
	})
	return errors.Join(err, printJSON(cmd, out))
}
