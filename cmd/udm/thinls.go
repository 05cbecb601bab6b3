package main

import (
	"bufio"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thinmeta"
	"udm/targets/thin/thintools"
)

func thinLsCommand() *cobra.Command {
	var o thintools.LsOptions
	var format string
	cmd := &cobra.Command{
		Use:   "ls METADATA",
		Short: "List the volumes in a pool's metadata",
		Example: `  udm thin ls p.metadata
  udm thin ls -o DEV,MAPPED,EXCLUSIVE,SHARED p.metadata`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "" {
				o.Fields = strings.Split(format, ",")
			}
			return withMetadata(cmd, args[0], func(dev blk.Device) error {
				if wantsJSON(cmd) {
					return thinLsJSON(cmd, dev, o)
				}
				var end func()
				o.Progress, end = progress(cmd, "reading ")
				defer end()
				b := bufio.NewWriter(cmd.OutOrStdout())
				return errors.Join(thintools.Ls(env.Real(), dev, b, o), b.Flush())
			})
		},
	}
	fl := cmd.Flags()
	addMetadataSnap(fl, &o.MetadataSnap, "list the metadata snapshot")
	fl.BoolVar(&o.NoHeaders, "no-headers", false, "omit the headings")
	fl.StringVarP(&format, "format", "o", "", "comma-separated list of fields: "+strings.Join(thintools.LsFields(), ", "))
	addJSON(cmd)
	return cmd
}

// listedThin is a volume in JSON output. Blocks are those of the pool.
type listedThin struct {
	ID          uint32 `json:"id"`
	Mapped      uint64 `json:"mappedBlocks"`
	Exclusive   uint64 `json:"exclusiveBlocks"`
	Transaction uint64 `json:"transaction"`
	Created     uint32 `json:"creationTime"`
	Snapshotted uint32 `json:"snapshottedTime"`
}

func thinLsJSON(cmd *cobra.Command, dev blk.Device, o thintools.LsOptions) error {
	list, _, err := thintools.List(env.Real(), dev, true, o)
	if err != nil {
		return err
	}
	out := make([]listedThin, 0, len(list))
	for _, l := range list {
		out = append(out, listedThin{l.ID, l.Mapped, l.Exclusive, l.TransactionID, l.Created, l.Snapshotted})
	}
	return printJSON(cmd, out)
}

func thinDeltaCommand() *cobra.Command {
	var o thintools.DeltaOptions
	var left, right thinID
	cmd := &cobra.Command{
		Use:     "delta METADATA --thin1 ID --thin2 ID",
		Short:   "Print the blocks in which two volumes differ, as XML",
		Example: `  udm thin delta --thin1 0 --thin2 1 p.metadata`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if left.word == "" || right.word == "" {
				return usagef(cmd, "--thin1 and --thin2 are missing; udm thin ls lists the volumes")
			}
			var err, err2 error
			o.Left, err = left.id(cmd)
			o.Right, err2 = right.id(cmd)
			if err := errors.Join(err, err2); err != nil {
				return err
			}
			return withMetadata(cmd, args[0], func(dev blk.Device) error {
				if wantsJSON(cmd) {
					return thinDeltaJSON(cmd, dev, o)
				}
				b := bufio.NewWriter(cmd.OutOrStdout())
				return errors.Join(thintools.Delta(env.Real(), dev, b, o), b.Flush())
			})
		},
	}
	fl := cmd.Flags()
	fl.Var(&left, "thin1", "number or name of the first volume (required); also --snap1")
	fl.Var(&right, "thin2", "number or name of the second volume (required); also --snap2")
	fl.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.Replace(name, "snap", "thin", strings.Count(name, "snap1")+strings.Count(name, "snap2")))
	})
	addMetadataSnap(fl, &o.MetadataSnap, "use the metadata snapshot")
	fl.BoolVar(&o.Verbose, "verbose", false, "also print the blocks of the data device")
	addJSON(cmd)
	return cmd
}

// difference is a range of blocks in JSON output. The data blocks are its first ones
// on each side, where it is mapped.
type difference struct {
	Kind  string  `json:"kind"` // left_only, right_only, different or same
	Begin uint64  `json:"begin"`
	Len   uint64  `json:"length"`
	Left  *uint64 `json:"leftData,omitempty"`
	Right *uint64 `json:"rightData,omitempty"`
}

func thinDeltaJSON(cmd *cobra.Command, dev blk.Device, o thintools.DeltaOptions) error {
	list := make([]difference, 0)
	_, err := thintools.Diff(env.Real(), dev, o, func(r thintools.DiffRange) error {
		d := difference{Kind: r.String(), Begin: r.Begin, Len: r.Len}
		if r.Difference != thintools.RightOnly {
			d.Left = &r.Left
		}
		if r.Difference != thintools.LeftOnly {
			d.Right = &r.Right
		}
		list = append(list, d)
		return nil
	})
	if err != nil {
		return err
	}
	return printJSON(cmd, list)
}

func thinTrimCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "trim METADATA DATA",
		Short:   "Discard the unused blocks of a pool's data device",
		Example: `  udm thin trim p.metadata p.data`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDevice(args[0], false, func(meta blk.Device) error {
				return withDevice(args[1], true, func(data blk.Device) error {
					return trim(cmd, meta, data)
				})
			})
		},
	}
	addJSON(cmd)
	return cmd
}

// trimmed is the amount discarded, in JSON output.
type trimmed struct {
	Bytes uint64 `json:"discardedBytes"`
}

func trim(cmd *cobra.Command, meta, data blk.Device) error {
	super, err := thinmeta.ReadSuper(env.Real(), meta)
	if err != nil {
		return err
	}
	block, size := uint64(super.DataBlockSize), data.Limits().Size
	var sum uint64
	_, err = thintools.Trim(env.Real(), meta, func(begin, end uint64) error {
		begin, end = begin*block, min(end*block, size)
		if begin >= end {
			return nil
		}
		sum += end - begin
		return blk.DiscardSectors(env.Real(), data, begin, end-begin)
	})
	if err != nil {
		return err
	}
	return say(cmd, trimmed{sum * blk.SectorSize}, "discarded %s\n", formatSectors(sum))
}

func thinSizeCommand() *cobra.Command {
	block := sectorsFlag(128)
	var pool sectorsFlag
	var thins uint64
	cmd := &cobra.Command{
		Use:     "size --pool-size SIZE",
		Short:   "Print how large the metadata of a pool should be",
		Example: `  udm thin size --pool-size 100G --block-size 64K --max-thins 1000`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if pool == 0 {
				return usagef(cmd, "--pool-size is missing")
			}
			sectors := thintools.MetadataSize(uint64(block)*blk.SectorSize, uint64(pool)*blk.SectorSize, thins) / blk.SectorSize
			return say(cmd, map[string]uint64{"sectors": sectors}, "%d sectors (%s)\n", sectors, formatSectors(sectors))
		},
	}
	cmd.Flags().VarP(&block, "block-size", "b", "size of the pool's blocks")
	cmd.Flags().VarP(&pool, "pool-size", "s", "size of the pool's data device (required)")
	cmd.Flags().Uint64VarP(&thins, "max-thins", "m", 1, "maximum number of volumes and snapshots")
	addJSON(cmd)
	return cmd
}
