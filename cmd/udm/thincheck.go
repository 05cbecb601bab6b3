package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thintools"
)

func thinCheckCommand() *cobra.Command {
	var o thintools.CheckOptions
	var mend, quiet bool
	cmd := &cobra.Command{
		Use:   "check METADATA",
		Short: "Check metadata for damage; the exit code is 1 if there is any",
		Example: `  udm thin check p.metadata
  udm thin check --repair p.metadata     # free leaked blocks, clear needs_check`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDevice(args[0], mend, func(dev blk.Device) error {
				look := thintools.Check
				if mend {
					look = thintools.Mend
				}
				var end func()
				o.Progress, end = progress(cmd, "checking ")
				r, err := look(env.Real(), dev, o)
				end()
				if err != nil {
					return err
				}
				return printReport(cmd, r, quiet)
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&quiet, "quiet", "q", false, "print nothing")
	fl.BoolVarP(&o.MetadataSnap, "metadata-snap", "m", false, "check the metadata snapshot")
	fl.BoolVar(&o.SuperOnly, "super-block-only", false, "check only the superblock")
	fl.BoolVar(&o.SkipMappings, "skip-mappings", false, "check only the superblock and the list of volumes")
	fl.BoolVar(&o.IgnoreNonFatal, "ignore-non-fatal-errors", false, "ignore leaked blocks")
	fl.Uint64Var(&o.MappingRoot, "override-mapping-root", 0, "root block of the mappings, instead of the superblock's")
	fl.BoolVar(&mend, "repair", false, "free leaked blocks and clear the needs_check flag")
	addJSON(cmd)
	return cmd
}

// checked is a report for programs.
type checked struct {
	Fatal       int      `json:"fatal"`
	NonFatal    int      `json:"nonFatal"`
	Devices     int      `json:"devices"`
	NeedsCheck  bool     `json:"needsCheck"`
	Transaction uint64   `json:"transaction"`
	Damages     []string `json:"damages,omitempty"`
}

func printReport(cmd *cobra.Command, r *thintools.Report, quiet bool) error {
	c := checked{Fatal: r.Fatal, NonFatal: r.NonFatal, Devices: len(r.Devices),
		NeedsCheck: r.Super.NeedsCheck(), Transaction: r.Super.TransactionID}
	for _, d := range r.Damages {
		c.Damages = append(c.Damages, d.Err.Error())
	}
	var err error
	switch {
	case quiet:
	case wantsJSON(cmd):
		err = printJSON(cmd, c)
	default:
		for _, d := range c.Damages {
			fmt.Fprintln(cmd.OutOrStdout(), d)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d devices, %d fatal errors, %d other errors, transaction %d\n", c.Devices, c.Fatal, c.NonFatal, c.Transaction)
	}
	if err == nil && c.Fatal+c.NonFatal > 0 {
		err = exitCode(1)
	}
	return err
}
