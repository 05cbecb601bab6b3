package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// rootCommand is udm with all its commands.
func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "udm",
		Short: "The Linux device mapper as an ordinary program",
		Long: `udm is the Linux device mapper as an ordinary program. It has the same tables,
status lines, messages and on-disk formats, and needs no root and no kernel module.
It stacks linear, striped, snapshot, thin and other targets on files and disks, and
serves the resulting block devices over NBD and FUSE.`,
		Example: `  udm quickstart                                    # see it work
  udm daemon &                                      # run it
  udm dmsetup create disk --table "0 2097152 linear /srv/a.img 0"
  udm ls
  nbdinfo "nbd+unix:///disk?socket=$HOME/.local/state/udm/nbd.sock"`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
		SilenceErrors: true, SilenceUsage: true, TraverseChildren: true,
		Version:           thisBuild().String(),
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	cmd.SetVersionTemplate("udm {{.Version}}\n")
	cmd.PersistentFlags().String("root", defaultRoot(), "directory of the daemon's sockets and saved state, or $UDM_ROOT")
	cmd.AddCommand(quickstartCommand(), daemonCommand(), keepCommand(), dmsetupCommand(), lsCommand(), statusCommand(), eventsCommand(), topCommand(), traceCommand(), metricsCommand(), webCommand(), doctorCommand(), bundleCommand(), limitCommand(), targetsCommand(), paramCommand(),
		createCommand(), loadCommand(), removeCommand(), runCommand(), runStarterCommand(),
		mountCommand(), unmountCommand(), attachCommand(), detachCommand(), attachHelperCommand(), exportCommand(), unexportCommand(),
		cloneCommand(), snapshotCommand(), mergeCommand(), rollbackCommand(), resetCommand(), flattenCommand(), commitCommand(), cpCommand(), changesCommand(), sendCommand(), receiveCommand(),
		resizeCommand(), renameCommand(), orphansCommand(), operationsCommand(), poolCommand(), volumeCommand(), thinCommand(), eraCommand(), cacheCommand(), lvmCommand(), luksCommand(), keyCommand(), verityCommand(), integrityCommand(), partitionsCommand(), logWritesCommand(), versionCommand(), manCommand(),
		rescueCommand(), archiveCommand())
	explainUsage(cmd)
	return cmd
}

// defaultRoot is $UDM_ROOT, else the system directory for root and the home directory
// for other users.
func defaultRoot() string {
	if root := os.Getenv("UDM_ROOT"); root != "" {
		return root
	}
	if os.Geteuid() == 0 {
		return "/var/lib/udm"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "state", "udm")
}

// rootOf is the absolute path that --root names.
func rootOf(cmd *cobra.Command) (string, error) {
	root, err := cmd.Flags().GetString("root")
	if err != nil {
		return "", err
	}
	return filepath.Abs(root)
}

// clientOf returns a client of the daemon that --root names.
func clientOf(cmd *cobra.Command) (*ctl.Client, error) {
	root, err := rootOf(cmd)
	if err != nil {
		return nil, err
	}
	return ctl.NewClient(root), nil
}
