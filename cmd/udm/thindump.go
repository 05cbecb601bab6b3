package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thintools"
)

// addOverrides adds the options that replace values of a damaged superblock.
func addOverrides(cmd *cobra.Command, o *thintools.Overrides) {
	fl := cmd.Flags()
	fl.Uint64Var(&o.TransactionID, "transaction-id", 0, "transaction number to use if the superblock is damaged")
	fl.Uint32Var(&o.DataBlockSize, "data-block-size", 0, "block size in sectors to use if the superblock is damaged")
	fl.Uint64Var(&o.DataBlocks, "nr-data-blocks", 0, "number of data blocks to use if the superblock is damaged")
}

func thinDumpCommand() *cobra.Command {
	var o thintools.DumpOptions
	var format, to string
	var ids []string
	cmd := &cobra.Command{
		Use:   "dump METADATA",
		Short: "Print the metadata as XML, which restore reads, or as text for people",
		Example: `  udm thin dump p.metadata > p.xml
  udm thin dump -f human_readable p.metadata
  udm thin dump --repair -o p.xml p.metadata`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch o.JSON = wantsJSON(cmd); format {
			case "xml":
			case "human_readable":
				o.Human = true
			default:
				return usagef(cmd, "--format %s is not supported; use xml or human_readable", format)
			}
			for _, id := range ids {
				n, err := (&thinID{id}).id(cmd)
				if err != nil {
					return err
				}
				o.Devices = append(o.Devices, n)
			}
			o.Damage = warnDamage(cmd)
			return withMetadata(cmd, args[0], func(dev blk.Device) error {
				return output(cmd, to, func(w io.Writer) error {
					var end func()
					o.Progress, end = progress(cmd, "dumping ")
					defer end()
					b := bufio.NewWriter(w)
					return errors.Join(thintools.Dump(env.Real(), dev, b, o), b.Flush())
				})
			})
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&format, "format", "f", "xml", "xml or human_readable")
	fl.BoolVarP(&o.Repair, "repair", "r", false, "skip damaged parts")
	addMetadataSnap(fl, &o.MetadataSnap, "dump the metadata snapshot")
	fl.StringVarP(&to, "output", "o", "", "file to write to")
	fl.StringSliceVar(&ids, "dev-id", nil, "dump only the volumes with these numbers or names")
	fl.BoolVar(&o.SkipMappings, "skip-mappings", false, "omit the mappings of volumes")
	addJSON(cmd)
	addOverrides(cmd, &o.Overrides)
	return cmd
}

// snapFlag is the option that chooses the metadata snapshot, with its block if wished.
type snapFlag struct{ *thintools.Snap }

func addMetadataSnap(fl *pflag.FlagSet, s *thintools.Snap, usage string) {
	fl.VarP(snapFlag{s}, "metadata-snap", "m", usage+", which must be in `BLOCK` if that is given")
	fl.Lookup("metadata-snap").NoOptDefVal = "0"
}

func (f snapFlag) Type() string { return "block" }

func (f snapFlag) String() string {
	if f.Snap == nil || f.Block == 0 {
		return ""
	}
	return strconv.FormatUint(f.Block, 10)
}

func (f snapFlag) Set(word string) (err error) {
	f.Use = true
	f.Block, err = strconv.ParseUint(word, 0, 64)
	return err
}

func thinRestoreCommand() *cobra.Command {
	var o thintools.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore XML METADATA",
		Short: "Write metadata from XML; METADATA is overwritten",
		Example: `  truncate -s 64M new.metadata
  udm thin restore p.xml new.metadata`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return withDevice(args[1], true, func(dev blk.Device) error {
				report, end := progress(cmd, "restoring ")
				defer end()
				if report != nil {
					o.Progress = func(done uint64) { report(done, 0) }
				}
				return thintools.Restore(env.Real(), bufio.NewReader(in), dev, o)
			})
		},
	}
	addOverrides(cmd, &o.Overrides)
	return cmd
}

func thinRepairCommand() *cobra.Command {
	var o thintools.RepairOptions
	cmd := &cobra.Command{
		Use:   "repair METADATA NEW",
		Short: "Write new metadata from what is readable of damaged metadata",
		Long: `repair reads damaged metadata and writes what is intact to NEW. It does not change
METADATA. It reports what is lost.`,
		Example: `  truncate -s 64M new.metadata
  udm thin repair p.metadata new.metadata`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Damage = warnDamage(cmd)
			return withDevice(args[0], false, func(in blk.Device) error {
				return withDevice(args[1], true, func(out blk.Device) error {
					report, end := progress(cmd, "repairing ")
					defer end()
					if report != nil {
						o.Progress = func(done uint64) { report(done, 0) }
					}
					return thintools.Repair(env.Real(), in, out, o)
				})
			})
		},
	}
	addOverrides(cmd, &o.Overrides)
	return cmd
}
