package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func volumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "volume",
		Aliases: []string{"vol"},
		Short:   "Thin volumes of a pool: create, rm, resize, ls",
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
		Short:             "Make an empty volume, which takes space as it is written",
		Example:           `  udm volume create fast db --size 1T`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if size == 0 {
				return errors.New("say how large it is to be: --size SIZE")
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
	cmd.Flags().Var(&size, "size", "size of the volume")
	addJSON(cmd)
	return cmd
}

// maxThinID is the largest number of a volume in a pool.
const maxThinID = 1<<24 - 1

// newVolume makes a volume in a pool by a message with the lowest free number in
// it, and the device name for it. origin is an image outside of the pool, or "".
func (m *maker) newVolume(pool, name string, sectors uint64, origin, message string) (ctl.Device, error) {
	p, err := m.device(pool)
	if err != nil {
		return p, err
	}
	if _, _, err := single(p, "pool", "thin-pool"); err != nil {
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
		Table: fmt.Sprintf("0 %d thin %s %d %s", sectors, p.Number, id, origin)})
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
func (m *maker) newThinID(pool ctl.Device, message string) (int, error) {
	used, err := m.thinIDs(pool)
	if err != nil {
		return 0, err
	}
	for id := 0; id <= maxThinID; id++ {
		if used[id] {
			continue
		}
		err := m.message(pool.Name, message, id)
		if !errors.Is(err, syscall.EEXIST) {
			return id, err
		}
	}
	return 0, fmt.Errorf("all %d numbers of %s are in use", maxThinID+1, pool.Name)
}

// thinIDs are the numbers of the volumes of a pool that are devices.
func (m *maker) thinIDs(pool ctl.Device) (map[int]bool, error) {
	users, err := m.users(pool.Number)
	ids := make(map[int]bool)
	for _, u := range users {
		if _, id, err := thinOf(u); err == nil {
			ids[id] = true
		}
	}
	return ids, err
}

// thinOf is the pool and the number of a volume.
func thinOf(d ctl.Device) (pool ctl.Dep, id int, err error) {
	_, words, err := single(d, "volume of a pool", "thin")
	if err != nil {
		return pool, 0, err
	}
	pool, _ = depNamed(d, words[0])
	id, err = strconv.Atoi(words[1])
	return pool, id, err
}

// thinClone makes a volume that begins with the content of an image.
func (m *maker) thinClone(image string, sectors uint64, pool, name string) (ctl.Device, error) {
	return m.newVolume(pool, name, sectors, word(image), "create_thin %d")
}

// thinSnapshot makes a volume with the content that another one has now.
func (m *maker) thinSnapshot(d ctl.Device, name string) (ctl.Device, error) {
	pool, id, err := thinOf(d)
	if err != nil {
		return d, err
	}
	if err := m.suspend(d.Name); err != nil {
		return d, explain(d.Name, err)
	}
	origin := ""
	if words := strings.Fields(d.Table[0].Params); len(words) > 2 {
		dep, _ := depNamed(d, words[2])
		origin = word(depPath(dep))
	}
	snap, err := m.newVolume(pool.Map, name, d.Sectors, origin, fmt.Sprintf("create_snap %%d %d", id))
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
		Short:             "Delete volumes and give their space back to the pool",
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
	pool, id, err := thinOf(d)
	if err != nil {
		return err
	}
	if err := m.remove(name); err != nil {
		return explain(name, err)
	}
	return m.message(pool.Map, "delete %d", id)
}

func volumeResizeCommand() *cobra.Command {
	var size sectorsFlag
	var shrink bool
	cmd := &cobra.Command{
		Use:   "resize NAME --size SIZE",
		Short: "Make a volume larger or smaller while it is in use",
		Example: `  udm volume resize db --size 2T
  udm volume resize db --size 500G --shrink`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if size == 0 {
				return errors.New("say how large it is to be: --size SIZE")
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
			if _, _, err := thinOf(d); err != nil {
				return err
			}
			if uint64(size) < d.Sectors && !shrink {
				return fmt.Errorf("%s has %s; a smaller size cuts off its end: add --shrink if nothing is there", d.Name, formatSectors(d.Sectors))
			}
			d.Sectors = uint64(size)
			return explain(d.Name, m.replace(d, "thin "+d.Table[0].Params))
		},
	}
	cmd.Flags().Var(&size, "size", "new size")
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
	ID      int        `json:"id"`
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
		pool, id, err := thinOf(d)
		if err != nil || len(args) > 0 && pool.Map != args[0] {
			continue
		}
		vs = append(vs, volume{d.Name, pool.Map, id, d.Sectors, d.Opens, full(d)})
		rows = append(rows, []string{d.Name, pool.Map, fmt.Sprint(id), formatSectors(d.Sectors), fmt.Sprint(d.Opens), bars(d)})
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, vs)
	}
	if len(vs) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "No volumes. Make one with: udm volume create POOL NAME --size SIZE")
		return err
	}
	return printTable(cmd.OutOrStdout(), rows)
}
