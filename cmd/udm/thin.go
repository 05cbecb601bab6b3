package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/blk/filedev"
)

func thinCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "thin",
		Short: "Work on the metadata of pools: check, dump, restore, ls, delta, rmap, trim, size, repair",
		Long: `The thin commands work on the metadata of a pool without a daemon, as the programs
of thin-provisioning-tools do. They work on pools of udm and of Linux. The pool must
not be in use. A command that writes refuses a file that is in use. A pool or a volume
of the daemon can be given by its name.

A link to udm named thin_check, thin_dump, thin_delta, thin_ls, thin_restore,
thin_repair, thin_rmap, thin_trim or thin_metadata_size is that program, with its
options, output and exit codes. "make install THIN_LINKS=yes" installs the links.`,
		Example: `  udm thin check p.metadata
  udm thin dump p.metadata > p.xml
  udm thin restore p.xml new.metadata`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(thinCheckCommand(), thinDumpCommand(), thinRestoreCommand(), thinLsCommand(),
		thinDeltaCommand(), thinTrimCommand(), thinSizeCommand(), thinRepairCommand(), thinRmapCommand())
	return cmd
}

// withDevice opens a file or block device for f and closes it. Written data has been
// flushed when it returns.
func withDevice(path string, write bool, f func(blk.Device) error) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	d, err := filedev.Open(abs, filedev.Options{ReadOnly: !write})
	if err != nil {
		return err
	}
	dev := checkdev.New(d, checkdev.Options{Preflush: true})
	return errors.Join(f(dev), dev.Close())
}

// progress shows a bar on a terminal, and nothing elsewhere. report may be called
// from one goroutine at a time; end removes the bar.
func progress(cmd *cobra.Command, what string) (report func(done, total uint64), end func()) {
	if !isTerminal(os.Stderr) {
		return nil, func() {}
	}
	p := mpb.NewWithContext(cmd.Context(), mpb.WithOutput(os.Stderr), mpb.WithWidth(60))
	bar := p.AddBar(0, mpb.BarRemoveOnComplete(), mpb.PrependDecorators(decor.Name(what)), mpb.AppendDecorators(decor.Percentage()))
	report = func(done, total uint64) {
		bar.SetTotal(int64(max(total, done, 1)), false)
		bar.SetCurrent(int64(done))
	}
	return report, func() { bar.Abort(true); p.Wait() }
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// output calls f with the file that -o names, or standard output.
func output(cmd *cobra.Command, path string, f func(io.Writer) error) error {
	if path == "" {
		return f(cmd.OutOrStdout())
	}
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f(out), out.Close())
}

// warnDamage prints damage that is skipped.
func warnDamage(cmd *cobra.Command) func(error) {
	return func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "udm: skipped:", err) }
}
