package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"udm/blk/leaf"
	"udm/cmd/udm/dmsetup"
)

func dmsetupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "dmsetup [OPTION|VERB]...",
		Short: "Run dmsetup on the devices of udm",
		Long: `dmsetup has the commands, options and output formats of the program dmsetup, for the
devices of the daemon. "udm dmsetup help" lists the commands. A link to udm named
dmsetup does the same.

A table names a device of udm as /dev/mapper/NAME. It names an open disk as
MAJOR:MINOR. Any other disk is one of

` + leaf.Help(),
		Example: `  udm dmsetup create disk --table "0 2097152 linear /srv/a.img 0"
  udm dmsetup table disk
  udm dmsetup suspend disk
  udm dmsetup load disk --table "0 4194304 linear /srv/b.img 0"
  udm dmsetup resume disk
  udm dmsetup remove disk`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root, err := rootOf(cmd.Root())
			if err != nil {
				return err
			}
			if code := dmsetup.Run(cmd.Context(), root, args, streams()); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

// streams are those of this process.
func streams() dmsetup.Streams {
	return dmsetup.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Width: terminalWidth(), UTF8: utf8Locale()}
}

// utf8Locale reports whether the user's locale has UTF-8.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToLower(v)
			return strings.Contains(v, "utf-8") || strings.Contains(v, "utf8")
		}
	}
	return false
}
