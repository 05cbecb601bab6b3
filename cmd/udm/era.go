package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/env"
	"udm/targets/era/eratools"
)

func eraCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "era",
		Short: "Work on the metadata of era devices: check, dump, restore, invalidate",
		Long: `The era commands work on the metadata of an era device without a daemon, as the era
programs of thin-provisioning-tools do. The device must not be in use.

A link to udm named era_check, era_dump, era_restore or era_invalidate is that program,
with its options, output and exit codes. "make install THIN_LINKS=yes" installs the links.`,
		Example: `  udm era check disk.era
  udm era invalidate --written-since 7 disk.era
  udm era dump disk.era > era.xml`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(eraCheckCommand(), eraDumpCommand(), eraRestoreCommand(), eraInvalidateCommand())
	return cmd
}

func eraCheckCommand() *cobra.Command { return (&eraCheck{}).command() }

// eraCheckProgram finds what Debian's release finds: no leaks.
func eraCheckProgram() *cobra.Command { return (&eraCheck{program: true}).command() }

// eraCheck is a check of metadata.
type eraCheck struct {
	superOnly, quiet bool
	program          bool // print and judge as era_check does
}

func (c *eraCheck) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "check METADATA",
		Short:   "Check metadata for damage; the exit code is 1 if there is any",
		Example: `  udm era check disk.era`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDevice(args[0], false, func(dev blk.Device) error {
				r, err := eratools.Check(env.Real(), dev, c.superOnly)
				if err != nil {
					return err
				}
				if err := c.print(cmd, r); err != nil {
					return err
				}
				if r.Fatal > 0 || r.NonFatal > 0 && !c.program {
					return exitCode(1)
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&c.quiet, "quiet", "q", false, "print nothing")
	cmd.Flags().BoolVar(&c.superOnly, "super-block-only", false, "check only the superblock")
	if !c.program {
		addJSON(cmd)
	}
	return cmd
}

// eraChecked is a report in JSON output.
type eraChecked struct {
	Fatal     int      `json:"fatal"`
	NonFatal  int      `json:"nonFatal"`
	Era       uint32   `json:"era"`
	Writesets int      `json:"writesets"`
	Damages   []string `json:"damages,omitempty"`
}

func (c *eraCheck) print(cmd *cobra.Command, r *eratools.Report) error {
	e := eraChecked{Fatal: r.Fatal, NonFatal: r.NonFatal, Era: r.Super.Era, Writesets: r.Writesets}
	out := cmd.OutOrStdout()
	if c.program {
		out = cmd.ErrOrStderr()
	}
	for _, d := range r.Damages {
		e.Damages = append(e.Damages, d.Err.Error())
	}
	switch {
	case c.quiet:
		return nil
	case !c.program && wantsJSON(cmd):
		return printJSON(cmd, e)
	}
	for _, d := range e.Damages {
		fmt.Fprintln(out, d)
	}
	if c.program {
		return nil
	}
	_, err := fmt.Fprintf(out, "era %d, %d writesets, %d fatal errors, %d other errors\n", e.Era, e.Writesets, e.Fatal, e.NonFatal)
	return err
}

func eraDumpCommand() *cobra.Command {
	var o eratools.DumpOptions
	var to string
	cmd := &cobra.Command{
		Use:   "dump METADATA",
		Short: "Print the metadata as XML, which restore reads",
		Example: `  udm era dump disk.era > era.xml
  udm era dump --logical disk.era            # the last era of each block`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Damage = warnDamage(cmd)
			return withDevice(args[0], false, func(dev blk.Device) error {
				return output(cmd, to, func(w io.Writer) error { return eratools.Dump(env.Real(), dev, w, o) })
			})
		},
	}
	cmd.Flags().StringVarP(&to, "output", "o", "", "file to write to")
	cmd.Flags().BoolVar(&o.Repair, "repair", false, "skip damaged parts")
	cmd.Flags().BoolVar(&o.Logical, "logical", false, "fold the writesets into the era array")
	return cmd
}

func eraRestoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "restore XML METADATA",
		Short: "Write metadata from XML; METADATA is overwritten",
		Example: `  truncate -s 4M new.era
  udm era restore era.xml new.era`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			in, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return withDevice(args[1], true, func(dev blk.Device) error {
				return eratools.Restore(env.Real(), bufio.NewReader(in), dev)
			})
		},
	}
}

func eraInvalidateCommand() *cobra.Command {
	var since, to string
	var snap bool
	cmd := &cobra.Command{
		Use:   "invalidate METADATA --written-since ERA",
		Short: "Print which blocks were written in an era or later, as XML",
		Example: `  udm era invalidate --written-since 7 disk.era
  udm era invalidate --metadata-snapshot --written-since 7 disk.era`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if since == "" {
				return usagef(cmd, "--written-since is missing")
			}
			n, err := strconv.ParseUint(since, 10, 32)
			if err != nil {
				return usagef(cmd, "--written-since %s is not the number of an era", since)
			}
			return withDevice(args[0], false, func(dev blk.Device) error {
				return output(cmd, to, func(w io.Writer) error {
					return eratools.Invalidate(env.Real(), dev, w, uint32(n), snap)
				})
			})
		},
	}
	cmd.Flags().StringVar(&since, "written-since", "", "the `ERA` (required)")
	cmd.Flags().BoolVar(&snap, "metadata-snapshot", false, "read the metadata snapshot; the device may be in use")
	cmd.Flags().StringVarP(&to, "output", "o", "", "file to write to")
	return cmd
}
