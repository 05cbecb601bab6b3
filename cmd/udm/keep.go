package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"udm/ctl/server/handover"
	"udm/ctl/server/systemd"
)

func keepCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "keep",
		Short: "Keep files and block devices that are in use while the daemon is restarted",
		Long: `keep runs in the foreground beside the daemon, as the same user. When the daemon stops in
order, it leaves open what is in use: files that programs have open in mounted
directories, and loop devices, mounted or open. Their I/O waits, and goes on when the
daemon runs again. Without "udm keep" they get I/O errors.

A daemon that is killed leaves nothing: thin volumes may have lost their last writes
then, which a file system must not miss. Nothing waits either for a daemon that could not
flush and close everything.

If no daemon comes back, stop "udm keep": what has waited then gets errors. In a
container, run it in another one than the daemon's, which takes all its processes along.
To upgrade the daemon without a restart, use "udm daemon --replace", which needs no "udm
keep".`,
		Example: `  udm keep --root /var/lib/udm &
  udm daemon --root /var/lib/udm`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := rootOf(cmd)
			if err != nil {
				return err
			}
			log := slog.New(logHandler("text", os.Stderr, slog.LevelInfo))
			return handover.ServeKeeper(cmd.Context(), root, log, func() {
				log.Info("ready", "root", root, "pid", os.Getpid())
				notify(log, systemd.Ready)
			})
		},
	}
}
