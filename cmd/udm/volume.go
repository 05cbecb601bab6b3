package main

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/targets/thin"
	"udm/targets/thin/thinmeta"
)

func volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "volume",
		Aliases: []string{"vol"},
		Short:   "Manage thin volumes: create, rm, resize, ls",
		Example: `  udm volume create fast db --size 1T
  udm snapshot db db-monday
  udm volume ls fast`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(volumeCreateCommand(), volumeRmCommand(), volumeResizeCommand(), volumeLsCommand())
	return cmd
}

func volumeCreateCommand() *cobra.Command {
	var size sectorsFlag
	cmd := &cobra.Command{
		Use:               "create POOL NAME --size SIZE",
		Short:             "Create an empty volume, which takes space as it is written",
		Example:           `  udm volume create fast db --size 1T`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if size == 0 {
				return errNoSize
			}
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			d, err := m.newVolume(args[0], args[1], uint64(size), "", "create_thin %d")
			if err != nil {
				return err
			}
			return printDevice(cmd, d)
		},
	}
	cmd.Flags().Var(&size, "size", "size of the volume (required)")
	addJSON(cmd)
	return cmd
}

// newVolume makes a volume in a pool by a message with the lowest free number in
// it, and the device name for it. origin is an image outside of the pool, or "".
func (m *maker) newVolume(pool, name string, sectors uint64, origin, message string) (ctl.Device, error) {
	p, err := m.device(pool)
	if err != nil {
		return p, err
	}
	if _, err := lineOf[*thin.PoolLine](p, "a pool"); err != nil {
		return p, err
	}
	var u undo
	if _, err := m.client.Create(m.ctx, ctl.Create{Name: name}); err != nil {
		return p, explain(name, err)
	}
	u.add(func() error { return m.remove(name) })
	id, err := m.newThinID(p, message)
	if err != nil {
		return p, u.after(explain(name, err))
	}
	// Before the removal of the device, the number cannot be deleted.
	u = append(undo{func() error { return m.message(pool, "delete %d", id) }}, u...)
	_, err = m.client.Load(m.ctx, ctl.Load{Ref: ctl.Ref{Name: name},
		Table: table(sectors, &thin.ThinLine{Pool: p.Number.String(), ID: id, Origin: origin})})
	if err == nil {
		err = m.resume(name)
	}
	if err != nil {
		return p, u.after(explain(name, err))
	}
	return m.device(name)
}

// newThinID sends a message that makes a volume with the first number that no
// volume has, in use or not.
func (m *maker) newThinID(pool ctl.Device, message string) (uint32, error) {
	used, err := m.thinIDs(pool)
	if err != nil {
		return 0, err
	}
	for id := uint32(0); id <= thinmeta.MaxID; id++ {
		if used[id] {
			continue
		}
		err := m.message(pool.Name, message, id)
		if !errors.Is(err, syscall.EEXIST) {
			return id, err
		}
	}
	return 0, fmt.Errorf("all %d volume numbers of %s are in use; delete a volume first", thinmeta.MaxID+1, pool.Name)
}

// thinIDs are the numbers of the volumes of a pool that are devices.
func (m *maker) thinIDs(pool ctl.Device) (map[uint32]bool, error) {
	users, err := m.users(pool.Number)
	ids := make(map[uint32]bool)
	for _, u := range users {
		if l, ok := only(u).(*thin.ThinLine); ok {
			ids[l.ID] = true
		}
	}
	return ids, err
}

// thinOf is the line of a volume, and its pool.
func thinOf(d ctl.Device) (l *thin.ThinLine, pool ctl.Dep, err error) {
	if l, err = lineOf[*thin.ThinLine](d, "a volume of a pool"); err == nil {
		pool, _ = depNamed(d, l.Pool)
	}
	return l, pool, err
}

// thinClone makes a volume that begins with the content of an image.
func (m *maker) thinClone(image string, sectors uint64, pool, name string) (ctl.Device, error) {
	return m.newVolume(pool, name, sectors, image, "create_thin %d")
}

// thinSnapshot makes a volume with the content that another one has now.
func (m *maker) thinSnapshot(d ctl.Device, name string) (ctl.Device, error) {
	l, pool, err := thinOf(d)
	if err != nil {
		return d, err
	}
	if err := m.suspend(d.Name); err != nil {
		return d, explain(d.Name, err)
	}
	origin := ""
	if l.Origin != "" {
		dep, _ := depNamed(d, l.Origin)
		origin = depPath(dep)
	}
	snap, err := m.newVolume(pool.Map, name, d.Sectors, origin, fmt.Sprintf("create_snap %%d %d", l.ID))
	if err != nil {
		return snap, errors.Join(err, m.resume(d.Name))
	}
	if err := m.resume(d.Name); err != nil {
		return snap, errors.Join(explain(d.Name, err), m.removeVolume(name), m.resume(d.Name))
	}
	return snap, nil
}

// depPath is what a table calls a device.
func depPath(d ctl.Dep) string {
	if d.Map != "" {
		return d.Number.String()
	}
	return d.Source
}

func volumeRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Delete volumes and return their space to the pool",
		Example:           `  udm volume rm db-monday`,
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
				errs = append(errs, m.removeVolume(name))
			}
			return errors.Join(errs...)
		},
	}
}

func (m *maker) removeVolume(name string) error {
	d, err := m.device(name)
	if err != nil {
		return err
	}
	l, pool, err := thinOf(d)
	if err != nil {
		return err
	}
	if err := m.remove(name); err != nil {
		return explain(name, err)
	}
	return m.message(pool.Map, "delete %d", l.ID)
}

func volumeResizeCommand() *cobra.Command {
	var size sectorsFlag
	var shrink bool
	cmd := &cobra.Command{
		Use:   "resize NAME --size SIZE",
		Short: "Change the size of a volume while it is in use",
		Example: `  udm volume resize db --size 2T
  udm volume resize db --size 500G --shrink`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if size == 0 {
				return errNoSize
			}
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			d, err := m.device(args[0])
			if err != nil {
				return err
			}
			l, _, err := thinOf(d)
			if err != nil {
				return err
			}
			if uint64(size) < d.Sectors && !shrink {
				return fmt.Errorf("%s is %s large; a smaller size cuts off its end; add --shrink if the end is unused", d.Name, formatSectors(d.Sectors))
			}
			d.Sectors = uint64(size)
			return explain(d.Name, m.replace(d, l))
		},
	}
	cmd.Flags().Var(&size, "size", "new size (required)")
	cmd.Flags().BoolVar(&shrink, "shrink", false, "allow a smaller size")
	return cmd
}

func volumeLsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ls [POOL]",
		Short: "List volumes",
		Example: `  udm volume ls
  udm volume ls fast --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE:              runVolumeLs,
	}
	addJSON(cmd)
	return cmd
}

// volume is a line of udm volume ls.
type volume struct {
	Name    string     `json:"name"`
	Pool    string     `json:"pool"`
	ID      uint32     `json:"id"`
	Sectors uint64     `json:"sectors"`
	Opens   int        `json:"opens"`
	Full    []fullness `json:"full,omitempty"`
}

func runVolumeLs(cmd *cobra.Command, args []string) error {
	ds, err := devicesNamed(cmd, nil)
	if err != nil {
		return err
	}
	vs := make([]volume, 0)
	rows := [][]string{{"VOLUME", "POOL", "ID", "SIZE", "OPEN", "TAKEN"}}
	for _, d := range ds {
		l, pool, err := thinOf(d)
		if err != nil || len(args) > 0 && pool.Map != args[0] {
			continue
		}
		vs = append(vs, volume{d.Name, pool.Map, l.ID, d.Sectors, d.Opens, full(d)})
		rows = append(rows, []string{d.Name, pool.Map, fmt.Sprint(l.ID), formatSectors(d.Sectors), fmt.Sprint(d.Opens), bars(d)})
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, vs)
	}
	if len(vs) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "There are no volumes. Create one: udm volume create POOL NAME --size SIZE")
		return err
	}
	return printTable(cmd.OutOrStdout(), rows)
}
