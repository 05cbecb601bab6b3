package main

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/ctl"
	"udm/volume"
)

func removeCommand() *cobra.Command {
	var deferred, keep, deleteStore bool
	cmd := &cobra.Command{
		Use:     "remove NAME...",
		Aliases: []string{"rm"},
		Short:   "Remove devices of every kind, with what was made for them",
		Long: `remove removes devices and what was made for them: the store of a clone or snapshot,
the files of a pool, the space of a volume in its pool. It does not change the disks,
files and images below them. With --keep, the data written to a device stays, too: a
store can be reused with "udm clone --store", and "udm orphans" lists it.

Several clones, volumes and disks are removed together: all of them or, if there is an
error, none. If a snapshot, a pool or a device on which others depend is among them, the
devices are removed one after the other.

A device on which others depend is not removed. When the last snapshot of a device is
removed, the device gets back the table that it had before "udm snapshot".`,
		Example: `  udm remove vm1
  udm remove vm2 vm3 vm4
  udm remove --keep vm1          # its store stays
  udm remove --deferred disk     # once it is no longer in use; files stay`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if deferred {
				return removeEach(cmd, args, func(ctx context.Context, c *ctl.Client, name string) error {
					return explain(name, found(name, c.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: name}, Deferred: true})))
				})
			}
			return removeObjects(cmd, args, volume.RemoveSpec{Keep: keep})
		},
	}
	cmd.Flags().BoolVar(&deferred, "deferred", false, "remove a device that is in use when it is closed")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the data written to it")
	cmd.Flags().BoolVar(&deleteStore, "delete-store", false, "")
	_ = cmd.Flags().MarkHidden("delete-store") // the default now
	return cmd
}

// removeObjects removes objects together if they can be, else one after the other.
func removeObjects(cmd *cobra.Command, names []string, s volume.RemoveSpec) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	together, err := removable(cmd.Context(), client, names)
	if err != nil {
		return err
	}
	if together {
		s.Names = names
		return client.RemoveObject(cmd.Context(), s)
	}
	var errs []error
	for _, name := range names {
		s.Name = name
		errs = append(errs, client.RemoveObject(cmd.Context(), s))
	}
	return errors.Join(errs...)
}

// removable reports whether objects can be removed together: there are several, none is a
// snapshot or a pool, and nothing is based on them.
func removable(ctx context.Context, c *ctl.Client, names []string) (bool, error) {
	if len(names) < 2 {
		return false, nil
	}
	objects, err := c.Objects(ctx)
	if err != nil {
		return false, err
	}
	free := make(map[string]bool)
	for _, o := range objects {
		free[o.Name] = len(o.On) == 0 && o.Kind != volume.Snapshot && o.Kind != volume.Pool
	}
	return !slices.ContainsFunc(names, func(name string) bool { return !free[name] }), nil
}

func removeEach(cmd *cobra.Command, names []string, remove func(context.Context, *ctl.Client, string) error) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	var errs []error
	for _, name := range names {
		errs = append(errs, remove(cmd.Context(), client, name))
	}
	return errors.Join(errs...)
}

func orphansCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "orphans",
		Short: "List what no device uses any more: stores, and volumes in pools",
		Long: `orphans lists stores in the daemon's directory that no device uses, and volumes of
pools without a device. "udm orphans rm" removes them. A store can be reused with
"udm clone --store", and a volume with "udm create".`,
		Example: `  udm orphans
  udm orphans rm /var/lib/udm/stores/vm1.cow fast:7`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := clientOf(cmd)
			if err != nil {
				return err
			}
			defer client.Close()
			list, err := client.Orphans(cmd.Context())
			if err != nil {
				return err
			}
			if wantsJSON(cmd) {
				return printJSON(cmd, list)
			}
			rows := [][]string{{"ORPHAN", "TAKEN", "OF"}}
			for _, o := range list {
				rows = append(rows, []string{o.String(), formatSectors(o.Bytes / blk.SectorSize), o.Base})
			}
			return printTable(cmd.OutOrStdout(), rows)
		},
	}
	addJSON(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:     "rm ORPHAN...",
		Short:   "Remove orphans, as udm orphans lists them",
		Example: `  udm orphans rm /var/lib/udm/stores/vm1.cow fast:7`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return removeEach(cmd, args, func(ctx context.Context, c *ctl.Client, name string) error {
				return c.RemoveOrphan(ctx, parseOrphan(name))
			})
		},
	})
	return cmd
}

// parseOrphan parses the output of [volume.Orphan.String].
func parseOrphan(name string) volume.Orphan {
	pool, number, ok := strings.Cut(name, ":")
	id, err := strconv.ParseUint(number, 10, 32)
	if ok && err == nil && !strings.Contains(pool, "/") {
		return volume.Orphan{Pool: pool, ID: uint32(id)}
	}
	return volume.Orphan{File: name}
}
