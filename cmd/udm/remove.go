package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/targets/snapshot"
)

func removeCommand() *cobra.Command {
	var deferred, deleteStore bool
	cmd := &cobra.Command{
		Use:     "remove DEVICE...",
		Aliases: []string{"rm"},
		Short:   "Remove devices; their disks and files stay",
		Long: `remove removes devices. The disks and files below them are not changed. With
--delete-store it also deletes the store of a clone or snapshot, and so everything
that was written to it. When the last snapshot of a device is removed, the device
gets back the table that it had before "udm snapshot".`,
		Example: `  udm remove disk
  udm remove --deferred disk     # once it is no longer in use
  udm remove --delete-store vm1  # a clone and everything written to it`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			var errs []error
			for _, name := range args {
				errs = append(errs, m.take(name, deferred, deleteStore))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&deferred, "deferred", false, "remove a device that is in use when it is closed")
	cmd.Flags().BoolVar(&deleteStore, "delete-store", false, "also delete the store of a clone or snapshot")
	return cmd
}

// take removes a device and what was made for it alone.
func (m *maker) take(name string, deferred, deleteStore bool) error {
	d, err := m.device(name)
	if err != nil {
		return explain(name, err)
	}
	l, noSnapshot := lineOf[*snapshot.Line](d, "a clone or snapshot with a store")
	if deleteStore && noSnapshot != nil {
		return noSnapshot
	}
	if err := m.client.Remove(m.ctx, ctl.Remove{Ref: ctl.Ref{Name: name}, Deferred: deferred}); err != nil {
		return explain(name, err)
	}
	if noSnapshot != nil {
		return nil
	}
	store, _ := depNamed(d, l.COW)
	if deleteStore && store.Source != "" {
		err = os.Remove(store.Source)
	}
	origin, _ := depNamed(d, l.Origin)
	return errors.Join(err, m.releaseOrigin(origin))
}

// releaseOrigin puts back the table of a device that has no snapshots any more:
// when nothing but its snapshot-origin stands on NAME-real.
func (m *maker) releaseOrigin(origin ctl.Dep) error {
	if origin.Map == "" {
		return nil
	}
	users, err := m.users(origin.Number)
	if err != nil || len(users) != 1 || users[0].Name+"-real" != origin.Map {
		return err
	}
	if _, ok := only(users[0]).(*snapshot.OriginLine); !ok {
		return nil
	}
	return m.putBack(users[0], origin.Map)
}
