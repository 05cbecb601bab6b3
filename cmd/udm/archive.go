package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"udm"
	"udm/archive"
	"udm/archive/place"
	"udm/blk/leaf"
	"udm/env"
)

func archiveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "archive",
		Short: "Keep snapshots in a folder or a bucket: init, create, list, verify, restore, serve, remove, prune, key",
		Long: `The archive commands keep the contents of devices in a STORE: ` + place.Syntax + `.
Only what has changed since the last archived snapshot is read and stored; it is
compressed, and encrypted if the archive was made with a key file. Every snapshot can be
restored, or served as it lies there, without another one. A command that is
interrupted leaves the archive as it was. Several may run at once.

Snapshots in a table are archive:SNAPSHOT:STORE. docs/formats/archive.md describes the
format.`,
		Example: `  udm archive init /backup
  udm snapshot disk monday && udm archive create /backup monday
  udm archive restore /backup monday --file disk.img`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(archiveKeyCommand(), archiveInitCommand(), archiveCreateCommand(), archiveListCommand(), archiveVerifyCommand(),
		archiveRestoreCommand(), archiveServeCommand(), archiveRemoveCommand(), archivePruneCommand())
	return cmd
}

// addKey gives a command the option --key-file.
func addKey(cmd *cobra.Command) {
	cmd.Flags().String("key-file", "", "`FILE` with the key of the archive")
}

// openArchive opens the archive that a command names.
func openArchive(cmd *cobra.Command, store string) (*archive.Archive, error) {
	file, err := cmd.Flags().GetString("key-file")
	if err != nil {
		return nil, err
	}
	return place.OpenArchive(cmd.Context(), store, file)
}

func archiveKeyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make a key file for an archive",
		Long: `key makes a new FILE with a random key. Whoever has it can read the archive; without it,
nobody can.`,
		Example: `  udm archive key ~/backup.key`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = f.Write(archive.NewKey())
			return errors.Join(err, f.Sync(), f.Close())
		},
	}
}

func archiveInitCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init STORE",
		Short: "Make an archive in an empty store",
		Example: `  mkdir /backup && udm archive init /backup
  udm archive init /backup --key-file ~/backup.key     # encrypted`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := cmd.Flags().GetString("key-file")
			if err != nil {
				return err
			}
			key, err := place.Key(file)
			if err != nil {
				return err
			}
			s, err := place.Open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return archive.Init(cmd.Context(), s, key)
		},
	}
	addKey(cmd)
	return cmd
}

func archiveListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list STORE",
		Aliases: []string{"ls"},
		Short:   "List the snapshots in an archive",
		Example: `  udm archive list /backup`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openArchive(cmd, args[0])
			if err != nil {
				return err
			}
			list, err := a.List(cmd.Context())
			if err != nil || wantsJSON(cmd) {
				return printUnless(cmd, err, append([]archive.Info{}, list...))
			}
			rows := [][]string{{"ID", "NAME", "SIZE", "READ", "STORED", "ARCHIVED"}}
			for _, i := range list {
				rows = append(rows, []string{i.ID, i.Name, formatBytes(i.Size), formatBytes(i.Read), formatBytes(i.Stored), i.Created.Local().Format("2006-01-02 15:04:05")})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	addKey(cmd)
	addJSON(cmd)
	return cmd
}

func archiveVerifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify STORE [SNAPSHOT]...",
		Short: "Read snapshots in an archive and check them; the exit code is 1 if one is damaged",
		Example: `  udm archive verify /backup
  udm archive verify /backup monday`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openArchive(cmd, args[0])
			if err != nil {
				return err
			}
			report, end := progress(cmd, "verifying ")
			v, err := a.Verify(cmd.Context(), args[1:], report)
			end()
			if err != nil {
				return err
			}
			for _, d := range v.Damaged {
				fmt.Fprintln(cmd.ErrOrStderr(), d)
			}
			if err := say(cmd, v, "%d snapshots, %d chunks, %s, %d damaged\n", v.Snapshots, v.Chunks, formatBytes(v.Bytes), len(v.Damaged)); err != nil || len(v.Damaged) == 0 {
				return err
			}
			return exitCode(1)
		},
	}
	addKey(cmd)
	addJSON(cmd)
	return cmd
}

func archiveServeCommand() *cobra.Command {
	var socket, name string
	cmd := &cobra.Command{
		Use:   "serve STORE SNAPSHOT --socket SOCKET",
		Short: "Serve a snapshot in an archive over NBD, until this command ends",
		Long: `serve serves an archived snapshot, read-only, over NBD at a Unix socket until it is
interrupted. What is read is kept in a cache on this machine: in the folder $UDM_CACHE,
at most $UDM_CACHE_SIZE (4G).`,
		Example: `  udm archive serve /backup monday --socket monday.sock &
  nbdcopy 'nbd+unix:///disk?socket=monday.sock' monday.img`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if socket == "" {
				return usagef(cmd, "--socket is missing")
			}
			disk, err := archivedName(cmd, args[0], args[1])
			if err != nil {
				return err
			}
			s := udm.New()
			return serveUntilDone(cmd, s, name, socket, func() error {
				sectors, err := sizeOf(disk)
				if err == nil {
					_, err = s.CreateReadOnly(name, udm.Table(udm.Line(0, sectors, "linear", disk+" 0")))
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "", "path of the socket to create")
	cmd.Flags().StringVar(&name, "name", "disk", "name of the NBD export")
	addKey(cmd)
	addJSON(cmd)
	return cmd
}

// archivedName is the name of the disk that is an archived snapshot.
func archivedName(cmd *cobra.Command, store, snapshot string) (string, error) {
	file, err := cmd.Flags().GetString("key-file")
	if err != nil {
		return "", err
	}
	if file != "" {
		if file, err = filepath.Abs(file); err != nil {
			return "", err
		}
		snapshot += ",key=" + file
	}
	if !strings.Contains(store, "://") {
		if store, err = filepath.Abs(store); err != nil {
			return "", err
		}
	}
	return "archive:" + snapshot + ":" + store, nil
}

func sizeOf(disk string) (sectors uint64, err error) {
	d, _, err := leaf.New(env.Real()).Open(disk, false)
	if err != nil {
		return 0, err
	}
	return d.Limits().Size, d.Close()
}

func archiveRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "remove STORE SNAPSHOT...",
		Aliases: []string{"rm"},
		Short:   "Remove snapshots from an archive; prune frees their space",
		Example: `  udm archive remove /backup monday && udm archive prune /backup`,
		Args:    cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openArchive(cmd, args[0])
			for i := 1; i < len(args) && err == nil; i++ {
				err = a.Remove(cmd.Context(), args[i])
			}
			return err
		},
	}
	addKey(cmd)
	return cmd
}

func archivePruneCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "prune STORE",
		Short: "Free the space of what no archived snapshot needs",
		Long: `prune removes the packs of which no snapshot needs a chunk, and what backups that have
died left. Backups may run meanwhile. One that made no progress for an hour is taken for
dead; if it is not, it fails when it ends.`,
		Example: `  udm archive prune /backup`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := openArchive(cmd, args[0])
			if err != nil {
				return err
			}
			p, err := a.Prune(cmd.Context())
			if err != nil {
				return err
			}
			return say(cmd, p, "freed %s; %s are kept, of which %s are not needed\n", formatBytes(p.Bytes), formatBytes(p.Kept), formatBytes(p.Unused))
		},
	}
	addKey(cmd)
	addJSON(cmd)
	return cmd
}
