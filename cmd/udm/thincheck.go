package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thintools"
)

func thinCheckCommand() *cobra.Command {
	c := &thinCheck{print: printReport}
	cmd := c.command()
	cmd.Flags().BoolVar(&c.mend, "repair", false, "free leaked blocks and clear the needs_check flag")
	return cmd
}

// thinCheck is a check of metadata.
type thinCheck struct {
	o           thintools.CheckOptions
	mend, quiet bool
	forgive     bool // repaired damage does not count
	clear       bool // clear needs_check if there is no damage
	print       func(cmd *cobra.Command, r *thintools.Report, quiet bool) error
}

func (c *thinCheck) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check METADATA",
		Short: "Check metadata for damage; the exit code is 1 if there is any",
		Example: `  udm thin check p.metadata
  udm thin check --repair p.metadata     # free leaked blocks, clear needs_check`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := metadataOf(cmd, args[0])
			if err != nil {
				return err
			}
			return withDevice(path, c.mend || c.clear, func(dev blk.Device) error {
				var end func()
				c.o.Progress, end = progress(cmd, "checking ")
				r, err := c.look(dev)
				end()
				if err != nil {
					return err
				}
				if err := c.print(cmd, r, c.quiet); err != nil || r.Err() == nil || c.forgive {
					return err
				}
				return exitCode(1)
			})
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&c.quiet, "quiet", "q", false, "print nothing")
	fl.BoolVarP(&c.o.MetadataSnap, "metadata-snap", "m", false, "check the metadata snapshot")
	fl.BoolVar(&c.o.SuperOnly, "super-block-only", false, "check only the superblock")
	fl.BoolVar(&c.o.SkipMappings, "skip-mappings", false, "check only the superblock and the list of volumes")
	fl.BoolVar(&c.o.IgnoreNonFatal, "ignore-non-fatal-errors", false, "ignore leaked blocks")
	fl.Uint64Var(&c.o.MappingRoot, "override-mapping-root", 0, "root block of the mappings, instead of the superblock's")
	addJSON(cmd)
	return cmd
}

func (c *thinCheck) look(dev blk.Device) (*thintools.Report, error) {
	if c.mend {
		return thintools.Mend(env.Real(), dev, c.o)
	}
	r, err := thintools.Check(env.Real(), dev, c.o)
	if err != nil || !c.clear || r.Err() != nil {
		return r, err
	}
	return thintools.Mend(env.Real(), dev, c.o)
}

// checked is a report in JSON output.
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
	return err
}
