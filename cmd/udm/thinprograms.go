package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/blk"
	"udm/env"
	"udm/targets/thin/thintools"
)

// thinPrograms are the programs of thin-provisioning-tools, by the names of links to
// udm. Options, output and exit codes are those of release 0.9; options of release 1
// are accepted. Those of the era and cache tools are among them.
var thinPrograms = map[string]func() *cobra.Command{
	"thin_check":          thinCheckProgram,
	"thin_dump":           thinDumpCommand,
	"thin_delta":          thinDeltaCommand,
	"thin_ls":             thinLsCommand,
	"thin_restore":        func() *cobra.Command { return betweenFiles(thinRestoreCommand()) },
	"thin_repair":         func() *cobra.Command { return betweenFiles(thinRepairCommand()) },
	"thin_rmap":           thinRmapCommand,
	"thin_trim":           thinTrimProgram,
	"thin_metadata_size":  thinMetadataSizeProgram,
	"cache_check":         cacheCheckProgram,
	"cache_dump":          cacheDumpCommand,
	"cache_restore":       func() *cobra.Command { return betweenFiles(cacheRestoreCommand()) },
	"cache_repair":        func() *cobra.Command { return betweenFiles(cacheRepairCommand()) },
	"cache_writeback":     cacheWritebackProgram,
	"cache_metadata_size": cacheSizeCommand,
	"era_check":           eraCheckProgram,
	"era_dump":            eraDumpCommand,
	"era_restore":         func() *cobra.Command { return betweenFiles(eraRestoreCommand()) },
	"era_invalidate":      eraInvalidateCommand,
}

// thinProgramNames returns the names that links may have.
func thinProgramNames() []string { return slices.Sorted(maps.Keys(thinPrograms)) }

// thinVersion is the release whose behaviour the programs have. LVM queries it.
const thinVersion = "0.9.0"

// thinProgram returns the program with a name as a stand-alone command.
func thinProgram(name string) *cobra.Command {
	cmd := thinPrograms[name]()
	_, operands, _ := strings.Cut(cmd.Use, " ")
	cmd.Use, cmd.Example = strings.TrimSpace(name+" "+operands), ""
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.Version = thinVersion
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.Flags().BoolP("version", "V", false, "print the release of thin-provisioning-tools that it is compatible with")
	cmd.Flags().String("root", defaultRoot(), "directory of the daemon that knows pools and volumes by name")
	if cmd.Flags().Lookup("quiet") == nil {
		cmd.Flags().BoolP("quiet", "q", false, "show no progress")
	}
	explainUsage(cmd)
	return cmd
}

// runThinProgram runs a program. All errors, including usage errors, have exit code
// 1.
func runThinProgram(ctx context.Context, name string, args []string, out, errs io.Writer) int {
	cmd := thinProgram(name)
	cmd.SetOut(out)
	cmd.SetErr(errs)
	cmd.SetArgs(inFull(cmd.Flags(), args))
	err := cmd.ExecuteContext(ctx)
	var code exitCode
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(errs, "%s: %s\n", name, oneLine(err))
	if errors.As(err, &usage) {
		fmt.Fprintf(errs, "Usage: %s\nOptions:\n%s", cmd.UseLine(), cmd.Flags().FlagUsages())
	}
	return 1
}

// inFull rewrites options for pflag: it expands abbreviated long names, and replaces
// a letter with an optional value (-nlong) by the long name.
func inFull(fl *pflag.FlagSet, args []string) (full []string) {
	for i, arg := range args {
		switch {
		case arg == "--":
			return append(full, args[i:]...)
		case strings.HasPrefix(arg, "--"):
			name, value, has := strings.Cut(arg, "=")
			arg = "--" + longName(fl, name[2:])
			if has {
				arg += "=" + value
			}
		case len(arg) > 2 && arg[0] == '-':
			if f := fl.ShorthandLookup(arg[1:2]); f != nil && f.NoOptDefVal != "" && f.Value.Type() != "bool" {
				arg = "--" + f.Name + "=" + arg[2:]
			}
		}
		full = append(full, arg)
	}
	return full
}

// longName returns the only option whose name starts with a word, if there is just
// one.
func longName(fl *pflag.FlagSet, word string) string {
	if fl.Lookup(word) != nil {
		return word
	}
	var match []string
	fl.VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, word) {
			match = append(match, f.Name)
		}
	})
	if len(match) == 1 {
		return match[0]
	}
	return word
}

// thinCheckProgram prints the transaction and the free space, which scripts read.
func thinCheckProgram() *cobra.Command {
	var all, flag bool
	c := &thinCheck{print: func(cmd *cobra.Command, r *thintools.Report, quiet bool) error {
		if quiet {
			return nil
		}
		for _, d := range r.Damages {
			fmt.Fprintln(cmd.ErrOrStderr(), d.Err)
		}
		if r.Fatal > 0 {
			return nil
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "TRANSACTION_ID=%d\nMETADATA_FREE_BLOCKS=%d\n", r.Super.TransactionID, r.FreeMetadata)
		return err
	}}
	cmd := c.command()
	check := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all && (c.o.MetadataSnap || c.o.SkipMappings || c.o.SuperOnly || c.o.MappingRoot != 0 || c.o.IgnoreNonFatal) {
			return usagef(cmd, "--auto-repair requires a full check")
		}
		c.mend, c.forgive, c.clear = all, all, flag
		return check(cmd, args)
	}
	cmd.Flags().BoolVar(&all, "auto-repair", false, "free leaked blocks and clear the needs_check flag")
	cmd.Flags().BoolVar(&flag, "clear-needs-check-flag", false, "clear the needs_check flag if there is no damage")
	return cmd
}

// betweenFiles gives a command with an input and an output operand the options -i and
// -o instead.
func betweenFiles(cmd *cobra.Command) *cobra.Command {
	var in, out string
	work := cmd.RunE
	cmd.Use, cmd.Args = cmd.Name()+" -i INPUT -o OUTPUT", cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case in == "":
			return usagef(cmd, "-i INPUT is missing")
		case out == "":
			return usagef(cmd, "-o OUTPUT is missing")
		}
		return work(cmd, []string{in, out})
	}
	cmd.Flags().StringVarP(&in, "input", "i", "", "file to read")
	cmd.Flags().StringVarP(&out, "output", "o", "", "existing file or device to write")
	return cmd
}

func thinTrimProgram() *cobra.Command {
	var metadata, data string
	cmd := thinTrimCommand()
	work := cmd.RunE
	cmd.Use, cmd.Args = "trim --metadata-dev METADATA --data-dev DATA", cobra.NoArgs
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if metadata == "" || data == "" {
			return usagef(cmd, "--metadata-dev and --data-dev are both required")
		}
		return work(cmd, []string{metadata, data})
	}
	cmd.Flags().StringVar(&metadata, "metadata-dev", "", "the metadata of the pool")
	cmd.Flags().StringVar(&data, "data-dev", "", "its data device")
	return cmd
}

func thinRmapCommand() *cobra.Command {
	var words []string
	cmd := &cobra.Command{
		Use:     "rmap METADATA --region BEGIN..END",
		Short:   "Print which volumes use ranges of a pool's data blocks",
		Example: `  udm thin rmap --region 0..128 p.metadata    # blocks 0 to 127`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			regions, err := parseRegions(cmd, words)
			if err != nil {
				return err
			}
			return withMetadata(cmd, args[0], func(dev blk.Device) error { return rmap(cmd, dev, regions) })
		},
	}
	cmd.Flags().StringArrayVar(&words, "region", nil, "range of data blocks, without its END; may be repeated (required)")
	addJSON(cmd)
	return cmd
}

func parseRegions(cmd *cobra.Command, words []string) (list []thintools.Region, err error) {
	for _, word := range words {
		var r thintools.Region
		if n, err := fmt.Sscanf(word, "%d..%d", &r.Begin, &r.End); n != 2 || err != nil || r.Begin >= r.End {
			return nil, usagef(cmd, "--region %s is not BEGIN..END with a greater END", word)
		}
		list = append(list, r)
	}
	if len(list) == 0 {
		return nil, usagef(cmd, "--region is missing")
	}
	return list, nil
}

// owned is a run of data blocks in JSON output.
type owned struct {
	Data uint64 `json:"data"`
	Len  uint64 `json:"length"`
	ID   uint32 `json:"id"`
	Thin uint64 `json:"origin"`
}

func rmap(cmd *cobra.Command, dev blk.Device, regions []thintools.Region) error {
	list, err := thintools.Owners(env.Real(), dev, regions)
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		out := make([]owned, 0, len(list))
		for _, o := range list {
			out = append(out, owned{o.Data, o.Len, o.ID, o.Thin})
		}
		return printJSON(cmd, out)
	}
	for _, o := range list {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "data %d..%d -> thin(%d) %d..%d\n", o.Data, o.Data+o.Len, o.ID, o.Thin, o.Thin+o.Len); err != nil {
			return err
		}
	}
	return nil
}
