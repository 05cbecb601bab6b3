package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/ctl"
	"udm/env"
	"udm/targets/cache"
	"udm/targets/cache/cachetools"
)

func cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Work on the metadata of caches: check, dump, restore, repair, writeback, size",
		Long: `The cache commands work on the metadata of a cache without a daemon, as the cache programs
of thin-provisioning-tools do. The cache must not be in use.

A link to udm named cache_check, cache_dump, cache_restore, cache_repair, cache_writeback
or cache_metadata_size is that program, with its options, output and exit codes. "make
install THIN_LINKS=yes" installs the links.`,
		Example: `  udm cache check disk.meta
  udm cache writeback disk.meta fast.img slow.img
  udm cache dump disk.meta > cache.xml`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(cacheCheckCommand(), cacheDumpCommand(), cacheRestoreCommand(), cacheRepairCommand(), cacheWritebackCommand(), cacheSizeCommand())
	return cmd
}

func cacheCheckCommand() *cobra.Command { return (&cacheCheck{}).command() }

// cacheCheckProgram finds what Debian's release finds: no leaks.
func cacheCheckProgram() *cobra.Command { return (&cacheCheck{program: true}).command() }

// cacheCheck is a check of metadata.
type cacheCheck struct {
	o            cachetools.CheckOptions
	clear, quiet bool
	program      bool // print and judge as cache_check does
}

func (c *cacheCheck) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "check METADATA",
		Short:   "Check metadata for damage; the exit code is 1 if there is any",
		Example: `  udm cache check disk.meta`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDevice(args[0], c.clear, func(dev blk.Device) error { return c.run(cmd, dev) })
		},
	}
	fl := cmd.Flags()
	fl.BoolVarP(&c.quiet, "quiet", "q", false, "print nothing")
	fl.BoolVar(&c.o.SuperOnly, "super-block-only", false, "check only the superblock")
	fl.BoolVar(&c.o.SkipMappings, "skip-mappings", false, "leave the mappings out")
	fl.BoolVar(&c.o.SkipHints, "skip-hints", false, "leave the policy's hints out")
	fl.BoolVar(&c.o.SkipDiscards, "skip-discards", false, "leave the discards out")
	fl.BoolVar(&c.clear, "clear-needs-check-flag", false, "clear the needs_check flag if there is no damage")
	if !c.program {
		addJSON(cmd)
	}
	return cmd
}

func (c *cacheCheck) run(cmd *cobra.Command, dev blk.Device) error {
	r, err := cachetools.Check(env.Real(), dev, c.o)
	if err != nil {
		return err
	}
	if err := c.print(cmd, r); err != nil {
		return err
	}
	if r.Fatal > 0 || r.NonFatal > 0 && !c.program {
		return exitCode(1)
	}
	if c.clear {
		return cachetools.ClearNeedsCheck(env.Real(), dev)
	}
	return nil
}

// cacheChecked is a report in JSON output.
type cacheChecked struct {
	Fatal      int      `json:"fatal"`
	NonFatal   int      `json:"nonFatal"`
	Version    uint32   `json:"version"`
	Clean      bool     `json:"clean"`
	NeedsCheck bool     `json:"needsCheck"`
	Blocks     uint32   `json:"blocks"`
	Mapped     uint64   `json:"mapped"`
	Dirty      uint64   `json:"dirty"`
	Damages    []string `json:"damages,omitempty"`
}

func (c *cacheCheck) print(cmd *cobra.Command, r *cachetools.Report) error {
	j := cacheChecked{Fatal: r.Fatal, NonFatal: r.NonFatal, Version: r.Super.Version, Clean: r.Super.Clean(), NeedsCheck: r.Super.NeedsCheck(),
		Blocks: r.Super.CacheBlocks, Mapped: r.Mapped, Dirty: r.Dirty}
	for _, d := range r.Damages {
		j.Damages = append(j.Damages, d.Err.Error())
	}
	out := cmd.OutOrStdout()
	if c.program {
		out = cmd.ErrOrStderr()
	}
	switch {
	case c.quiet:
		return nil
	case !c.program && wantsJSON(cmd):
		return printJSON(cmd, j)
	}
	for _, d := range j.Damages {
		fmt.Fprintln(out, d)
	}
	if c.program {
		return nil
	}
	closed := "closed in order"
	if !j.Clean {
		closed = "not closed in order"
	}
	_, err := fmt.Fprintf(out, "%d of %d blocks in use, %d dirty, %s, %d fatal errors, %d other errors\n", j.Mapped, j.Blocks, j.Dirty, closed, j.Fatal, j.NonFatal)
	return err
}

func cacheDumpCommand() *cobra.Command {
	var o cachetools.DumpOptions
	var to string
	cmd := &cobra.Command{
		Use:     "dump METADATA",
		Short:   "Print the metadata as XML, which restore reads",
		Example: `  udm cache dump disk.meta > cache.xml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Damage = warnDamage(cmd)
			return withDevice(args[0], false, func(dev blk.Device) error {
				return output(cmd, to, func(w io.Writer) error { return cachetools.Dump(env.Real(), dev, w, o) })
			})
		},
	}
	cmd.Flags().StringVarP(&to, "output", "o", "", "file to write to")
	cmd.Flags().BoolVar(&o.Repair, "repair", false, "skip damaged parts")
	return cmd
}

func cacheRestoreCommand() *cobra.Command {
	var o cachetools.RestoreOptions
	cmd := &cobra.Command{
		Use:   "restore XML METADATA",
		Short: "Write metadata from XML; METADATA is overwritten",
		Example: `  truncate -s 4M new.meta
  udm cache restore --metadata-version 2 cache.xml new.meta`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.Version != 1 && o.Version != 2 {
				return usagef(cmd, "--metadata-version must be 1 or 2, not %d", o.Version)
			}
			in, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer in.Close()
			return withDevice(args[1], true, func(dev blk.Device) error {
				return cachetools.Restore(env.Real(), bufio.NewReader(in), dev, o)
			})
		},
	}
	cmd.Flags().Uint32Var(&o.Version, "metadata-version", 1, "1, or 2 with dirty bits in a bitset")
	cmd.Flags().BoolVar(&o.Unclean, "omit-clean-shutdown", false, "leave the clean-shutdown flag out: all blocks count as dirty")
	return cmd
}

func cacheRepairCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "repair DAMAGED METADATA",
		Short:   "Write new metadata from what is readable of damaged one; METADATA is overwritten",
		Example: `  udm cache repair disk.meta new.meta`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withDevice(args[0], false, func(in blk.Device) error {
				return withDevice(args[1], true, func(out blk.Device) error {
					return cachetools.Repair(env.Real(), in, out, warnDamage(cmd))
				})
			})
		},
	}
}

func cacheWritebackCommand() *cobra.Command {
	return cacheWriteback("writeback METADATA CACHE ORIGIN", func(_ *cobra.Command, args []string) (m, f, o string, err error) {
		return args[0], args[1], args[2], nil
	}, cobra.ExactArgs(3))
}

// cacheWritebackProgram takes the devices as options.
func cacheWritebackProgram() *cobra.Command {
	var meta, fast, origin string
	cmd := cacheWriteback("writeback", func(cmd *cobra.Command, _ []string) (m, f, o string, err error) {
		for _, d := range [][2]string{{meta, "metadata"}, {fast, "fast"}, {origin, "origin"}} {
			if d[0] == "" {
				return "", "", "", usagef(cmd, "--%s-device is missing", d[1])
			}
		}
		return meta, fast, origin, nil
	}, cobra.NoArgs)
	fl := cmd.Flags()
	fl.StringVar(&meta, "metadata-device", "", "the metadata of the cache")
	fl.StringVar(&fast, "fast-device", "", "the cache device")
	fl.StringVar(&origin, "origin-device", "", "the slow device")
	fl.Uint("buffer-size-meg", 4, "accepted, and not needed")
	return cmd
}

func cacheWriteback(use string, names func(*cobra.Command, []string) (meta, fast, origin string, err error), args cobra.PositionalArgs) *cobra.Command {
	var o cachetools.WritebackOptions
	var list bool
	cmd := &cobra.Command{
		Use:     use,
		Short:   "Copy dirty blocks to the origin; all blocks if the cache was not closed in order",
		Example: `  udm cache writeback disk.meta fast.img slow.img`,
		Args:    args,
		RunE: func(cmd *cobra.Command, args []string) error {
			meta, fast, origin, err := names(cmd, args)
			if err != nil {
				return err
			}
			if list {
				o.Failed = func(b cachetools.Block, err error) { fmt.Fprintln(cmd.ErrOrStderr(), err) }
			}
			var w cachetools.Written
			err = withDevices(meta, fast, origin, !o.NoUpdate, func(m, f, s blk.Device) (err error) {
				w, err = cachetools.Writeback(env.Real(), m, f, s, o)
				return err
			})
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%d/%d blocks successfully copied.\n", w.Copied, w.Copied+w.Failed); err != nil {
				return err
			}
			if w.Failed > 0 {
				return exitCode(1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&list, "list-failed-blocks", false, "print the blocks that could not be copied")
	cmd.Flags().BoolVar(&o.NoUpdate, "no-metadata-update", false, "leave the blocks dirty in the metadata")
	return cmd
}

func withDevices(meta, fast, origin string, update bool, f func(m, f, o blk.Device) error) error {
	return withDevice(meta, update, func(m blk.Device) error {
		return withDevice(fast, false, func(c blk.Device) error {
			return withDevice(origin, true, func(o blk.Device) error { return f(m, c, o) })
		})
	})
}

func cacheSizeCommand() *cobra.Command {
	var block, device, blocks, hint uint64
	cmd := &cobra.Command{
		Use:   "size [--block-size SECTORS] [--device-size SECTORS] [--nr-blocks N]",
		Short: "Print how large the metadata of a cache should be",
		Example: `  udm cache size --block-size 128 --device-size 20971520   # 10 GiB in blocks of 64 KiB
  udm cache size --nr-blocks 163840`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := cacheBlocks(cmd.Flags().Changed, block, device, blocks)
			if err != nil {
				return err
			}
			size := cachetools.Size(n, hint)
			if wantsJSON(cmd) {
				return printJSON(cmd, map[string]uint64{"sectors": size})
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d sectors\n", size)
			return err
		},
	}
	fl := cmd.Flags()
	fl.Uint64Var(&block, "block-size", 0, "sectors in a block of the cache")
	fl.Uint64Var(&device, "device-size", 0, "sectors of the cache device")
	fl.Uint64Var(&blocks, "nr-blocks", 0, "blocks of the cache")
	fl.Uint64Var(&hint, "max-hint-width", 4, "bytes in a hint of the policy")
	addJSON(cmd)
	return cmd
}

// cacheBlocks is the number of blocks of a cache of which some of these are given.
func cacheBlocks(given func(string) bool, block, device, blocks uint64) (uint64, error) {
	switch {
	case given("block-size") != given("device-size"):
		return 0, errors.New("--block-size and --device-size belong together; give both, or --nr-blocks")
	case given("block-size") && block == 0:
		return 0, errors.New("--block-size must not be 0")
	case given("block-size") && given("nr-blocks") && device/block != blocks:
		return 0, fmt.Errorf("--nr-blocks %d contradicts --device-size and --block-size, which make %d; leave one out", blocks, device/block)
	case given("block-size"):
		return device / block, nil
	case given("nr-blocks"):
		return blocks, nil
	}
	return 0, errors.New("give --block-size and --device-size, or --nr-blocks")
}

// cacheHits is how much of a device's I/O a cache has served.
type cacheHits struct {
	Reads     uint64 `json:"reads"`
	ReadHits  uint64 `json:"readHits"`
	Writes    uint64 `json:"writes"`
	WriteHits uint64 `json:"writeHits"`
	Dirty     uint64 `json:"dirtyBlocks"`
}

// hitsOf returns the hits of each cache among the targets of a device.
func hitsOf(d ctl.Device) (hs []cacheHits) {
	for _, l := range d.Status {
		if l.Target != "cache" {
			continue
		}
		if s, err := cache.ParseStatus(l.Params); err == nil && s.State == cache.Figures {
			hs = append(hs, cacheHits{s.ReadHits + s.ReadMisses, s.ReadHits, s.WriteHits + s.WriteMisses, s.WriteHits, s.Dirty})
		}
	}
	return hs
}

func (h cacheHits) String() string {
	return fmt.Sprintf("%s of %d reads, %s of %d writes, %d blocks dirty", percent(h.ReadHits, h.Reads), h.Reads, percent(h.WriteHits, h.Writes), h.Writes, h.Dirty)
}

func percent(part, whole uint64) string {
	if whole == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(part)/float64(whole))
}
