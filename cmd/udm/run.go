package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"udm/ctl"
	udmrun "udm/run"
)

// runFlags are the options of udm run.
type runFlags struct {
	disks                           []string
	private, asRoot, wait, devFiles bool
	major                           uint32
}

func runCommand() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [--disk NAME=FILE]... [--private] -- COMMAND [ARG]...",
		Short: "Run dmsetup, lvm, mkfs and other programs on udm's devices, without root (Linux)",
		Long: `run runs an unmodified program, which sees udm's devices as block devices: dmsetup
and lvm make them, mkfs, fsck, parted, dd and others use them. It needs no privilege
but to use FUSE. What the program starts runs the same way.

The devices are those of the daemon that --root names. If none is running, or with
--private, there is a daemon for this command only: it starts without devices and ends
with the command. What is on the disks stays.

The program sees only udm's devices in /dev, and no others. System calls about devices
are answered here; reads and writes go to files directly. This is for programs that
cooperate, and no security boundary. Not possible: mount, sudo, loop devices, programs
of 32 bits.

Processes that the command leaves behind, such as dmeventd, are ended with it, unless
--wait is given. The exit code is the command's; 126 or 127 if it cannot be run.`,
		Example: `  truncate -s 10G disk.img
  udm run --disk sda=disk.img -- sh -ec '
      pvcreate /dev/sda; vgcreate vg /dev/sda; lvcreate -L 1G -n root vg
      mkfs.ext4 -d rootfs/ /dev/vg/root'
  udm run -- dmsetup create a --table "0 2048 zero"     # with udm daemon running
  udm run --private --disk sda=disk.img -- bash`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runRun(cmd, f, args) },
	}
	fl := cmd.Flags()
	fl.SetInterspersed(false) // the command has options of its own
	fl.StringArrayVar(&f.disks, "disk", nil, "show FILE, a disk image, as the block device /dev/NAME; may be repeated")
	fl.BoolVar(&f.private, "private", false, "start a daemon for this command even if one is running")
	fl.BoolVar(&f.asRoot, "as-root", false, "tell the command that it is root, for programs that refuse other users")
	fl.BoolVar(&f.devFiles, "dev-files", false, "let the command make ordinary files in /dev; otherwise a device's name with a typing error is refused")
	fl.BoolVar(&f.wait, "wait", false, "wait for processes that the command leaves behind, instead of ending them")
	fl.Uint32Var(&f.major, "major", 0, "major number of mapped devices (default: one that this machine does not use)")
	return cmd
}

func runRun(cmd *cobra.Command, f runFlags, args []string) error {
	if os.Getenv(udmrun.NestedEnv) != "" {
		return runNested(f, args)
	}
	disks, err := udmrun.ParseDisks(f.disks)
	if err != nil {
		return err
	}
	cfg := udmrun.Config{Disks: disks, Command: args, Starter: []string{"/proc/self/exe", runStarter}, AsRoot: f.asRoot, Wait: f.wait, DevFiles: f.devFiles, Major: f.major}
	if cfg.Root, err = rootOf(cmd); err != nil {
		return err
	}
	ctx := context.WithoutCancel(cmd.Context()) // Ctrl-C is for the program
	client := ctl.NewClient(cfg.Root)
	defer func() { client.Close() }()
	if f.private || !running(ctx, client) {
		d, err := startOwnDaemon()
		if err != nil {
			return err
		}
		defer d.end()
		client.Close()
		client, cfg.Root, cfg.Daemon = ctl.NewClient(d.root), d.root, d.cmd.Process.Pid
	}
	code, err := udmrun.Run(ctx, client, cfg)
	var reported udmrun.Reported
	switch {
	case errors.As(err, &reported):
		return exitCode(reported)
	case err != nil:
		return err
	case code != 0:
		return exitCode(code)
	}
	return nil
}

// running reports whether a daemon answers.
func running(ctx context.Context, c *ctl.Client) bool {
	_, err := c.Version(ctx)
	var none *ctl.NotRunning
	return !errors.As(err, &none)
}

// runNested runs the command under the supervisor that there is already.
func runNested(f runFlags, args []string) error {
	if len(f.disks) > 0 || f.private {
		return fmt.Errorf("this runs under udm run already, and uses its devices; leave out --disk and --private here")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var x *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &x):
		return exitCode(x.ExitCode())
	}
	return cannotRun(err)
}

// cannotRun prints why a program cannot be run, and returns the exit code.
func cannotRun(err error) error {
	fmt.Fprintln(os.Stderr, "udm run:", err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitCode(udmrun.NotFound)
	}
	return exitCode(udmrun.CannotRun)
}

// runStarter is the command that becomes the program of udm run.
const runStarter = "run-starter"

func runStarterCommand() *cobra.Command {
	return &cobra.Command{
		Use: runStarter, Hidden: true, DisableFlagParsing: true,
		Short:   "Become the program of udm run",
		Long:    "The supervisor of udm run starts this program, which becomes the command. It is not for users.",
		Example: `  udm run -- COMMAND`,
		RunE:    func(_ *cobra.Command, args []string) error { return cannotRun(udmrun.Exec(args)) },
	}
}
