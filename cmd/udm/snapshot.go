package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

func snapshotCommand() *cobra.Command {
	var store string
	var size sectorsFlag
	cmd := &cobra.Command{
		Use:   "snapshot DEVICE NAME",
		Short: "Take a snapshot of a device, as another device",
		Long: `snapshot creates the device NAME with the present content of DEVICE. From then on
both can be written independently. DEVICE may be in use. Its I/O waits briefly
while the snapshot is taken.

A snapshot of a thin volume takes constant time and is kept in the pool. For any
other device, a write to DEVICE first copies the old content to a store file.
DEVICE is then mapped to a new device, DEVICE-real, which has the table that
DEVICE had before.`,
		Example: `  udm snapshot disk before-upgrade
  udm snapshot disk before-upgrade --store /srv/before.cow --size 1G
  udm merge before-upgrade           # restore it`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			d, err := m.snapshot(args[0], args[1], store, uint64(size))
			if err != nil {
				return err
			}
			return printDevice(cmd, d)
		},
	}
	cmd.Flags().StringVar(&store, "store", "", "file for the old content (default ROOT/stores/NAME.cow)")
	cmd.Flags().Var(&size, "size", "largest size of the store (default: enough for the whole device)")
	addJSON(cmd)
	return cmd
}

// snapshot keeps the device of as name.
func (m *maker) snapshot(of, name, store string, size uint64) (ctl.Device, error) {
	d, err := m.device(of)
	if err != nil {
		return d, err
	}
	switch only(d).(type) {
	case *thin.ThinLine:
		if store != "" || size != 0 {
			return d, fmt.Errorf("%s is a thin volume, whose snapshots are kept in its pool; omit --store and --size", of)
		}
		return m.thinSnapshot(d, name)
	case *snapshot.Line, *snapshot.MergeLine:
		return d, fmt.Errorf("%s is itself a snapshot; only thin volumes can have snapshots of snapshots", of)
	}
	path, made, err := m.store(name, store, d.Sectors, size)
	if err != nil {
		return d, err
	}
	if !made {
		return d, fmt.Errorf("%s exists; choose a new file for the store", path)
	}
	if err := m.cowSnapshot(d, name, path); err != nil {
		return d, errors.Join(explain(name, err), m.unmake(path, made))
	}
	return m.device(name)
}

// cowSnapshot makes a snapshot with a store. All that can well fail is done before
// the origin is suspended; then the snapshot begins, and the origin goes on. The
// origin stays suspended, also after a crash, until both have their tables.
func (m *maker) cowSnapshot(d ctl.Device, name, store string) error {
	var u undo
	origin, err := m.originOf(d, &u)
	if err == nil {
		_, err = m.client.Create(m.ctx, ctl.Create{Name: name})
	}
	if err == nil {
		u.add(func() error { return m.remove(name) })
		_, err = m.client.Load(m.ctx, ctl.Load{Ref: ctl.Ref{Name: name}, Table: snapshotLine(d.Sectors, origin, store)})
	}
	if err == nil {
		u.add(func() error { return errors.Join(m.clear(d.Name), m.resume(d.Name)) })
		err = m.suspend(d.Name)
	}
	if err == nil {
		err = m.resume(name)
	}
	if err == nil {
		err = m.resume(d.Name)
	}
	return u.after(err)
}

// originOf is what the snapshots of a device look at: what its snapshot-origin
// stands on. A device without one gets one as its next table, on a device NAME-real
// with the table that it has now.
func (m *maker) originOf(d ctl.Device, u *undo) (string, error) {
	if l, ok := only(d).(*snapshot.OriginLine); ok {
		return l.Origin, nil
	}
	real := d.Name + "-real"
	if _, err := m.client.Create(m.ctx, ctl.Create{Name: real}); err != nil {
		return "", err
	}
	u.add(func() error { return m.remove(real) })
	if err := m.loadLines(real, d.Table, d.ReadOnly); err != nil {
		return "", err
	}
	if err := m.resume(real); err != nil {
		return "", err
	}
	u.add(func() error { return m.clear(d.Name) })
	path := "/dev/mapper/" + real
	return path, m.load(d, &snapshot.OriginLine{Origin: path})
}
