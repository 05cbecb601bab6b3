package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/blk/filedev"
	"udm/ctl"
	"udm/targets/thin"
	"udm/targets/thin/thintools"
)

func poolCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Manage pools of thin volumes: create, grow, status, rm",
		Long: `A pool is space that thin volumes share. A volume takes space as it is written.
A pool consists of two sparse files, one for data and one for metadata. "udm volume"
manages the volumes in a pool.`,
		Example: `  udm pool create fast --size 100G
  udm volume create fast db --size 1T
  udm pool status
  udm pool grow fast --size 200G`,
		Args: cobra.ArbitraryArgs, RunE: needsCommand,
	}
	cmd.AddCommand(poolCreateCommand(), poolGrowCommand(), poolStatusCommand(), poolRmCommand())
	return cmd
}

// poolShape is what a new pool is to be like. Sizes are in sectors.
type poolShape struct {
	size, metadata sectorsFlag
	block          sectorsFlag
	dir            string
	failWhenFull   bool
}

func poolCreateCommand() *cobra.Command {
	s := poolShape{block: 128}
	cmd := &cobra.Command{
		Use:   "create POOL --size SIZE",
		Short: "Create a pool",
		Example: `  udm pool create fast --size 100G
  udm pool create big --size 2T --block 1M --dir /srv/big`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			d, err := m.createPool(args[0], s)
			if err != nil {
				return err
			}
			return printDevice(cmd, d)
		},
	}
	fl := cmd.Flags()
	fl.Var(&s.size, "size", "size of the data file (required)")
	fl.Var(&s.metadata, "metadata-size", "size of the metadata file (default: enough for this pool)")
	fl.Var(&s.block, "block", "unit of allocation, from 64K to 1G")
	fl.StringVar(&s.dir, "dir", "", "directory for the files of the pool (default ROOT/pools/POOL)")
	fl.BoolVar(&s.failWhenFull, "error-if-no-space", false, "when the pool is full, fail writes at once instead of waiting for it to grow")
	addJSON(cmd)
	return cmd
}

// createPool makes the files of a pool and its device.
func (m *maker) createPool(name string, s poolShape) (ctl.Device, error) {
	if s.size == 0 {
		return ctl.Device{}, errNoSize
	}
	blocks := uint64(s.size) / uint64(max(s.block, 1))
	if blocks == 0 {
		return ctl.Device{}, fmt.Errorf("--size %s is smaller than one block of %s", &s.size, &s.block)
	}
	if s.metadata == 0 {
		s.metadata = sectorsFlag(metadataSize(blocks, uint64(s.block)))
	}
	if s.dir == "" {
		s.dir = filepath.Join(m.root, "pools", name)
	}
	var u undo
	dir, err := makeDir(s.dir, &u)
	if err != nil {
		return ctl.Device{}, u.after(err)
	}
	data, meta := filepath.Join(dir, name+".data"), filepath.Join(dir, name+".metadata")
	if err := createFile(data, uint64(s.size), &u); err != nil {
		return ctl.Device{}, u.after(err)
	}
	if err := createFile(meta, uint64(s.metadata), &u); err != nil {
		return ctl.Device{}, u.after(err)
	}
	d, err := m.client.Create(m.ctx, ctl.Create{Name: name, Table: s.line(blocks, meta, data)})
	return d, u.after(explain(name, err))
}

// makeDir makes a directory, if it is not there, and returns its absolute path.
func makeDir(dir string, u *undo) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	u.add(func() error { return os.Remove(dir) })
	return dir, os.MkdirAll(dir, 0o700)
}

// createFile makes a sparse file of so many sectors.
func createFile(path string, sectors uint64, u *undo) error {
	if err := filedev.Create(path, sectors); err != nil {
		return fmt.Errorf("%w; choose another --dir or delete the file", err)
	}
	u.add(func() error { return os.Remove(path) })
	return nil
}

func (s *poolShape) line(blocks uint64, meta, data string) string {
	return table(blocks*uint64(s.block), &thin.PoolLine{
		Metadata: meta, Data: data, BlockSectors: uint64(s.block), LowWater: blocks / 20, ErrorIfNoSpace: s.failWhenFull,
	})
}

// The smallest and the largest metadata device, in sectors.
const minMetadata, maxMetadata = 4096, 255 * (1 << 14) * 8

func poolGrowCommand() *cobra.Command {
	var size, metadata sectorsFlag
	cmd := &cobra.Command{
		Use:   "grow POOL",
		Short: "Enlarge a pool while it is in use",
		Example: `  udm pool grow fast --size 200G
  udm pool grow fast --metadata-size 1G`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			if size == 0 && metadata == 0 {
				return errors.New("--size or --metadata-size is required")
			}
			return explain(args[0], m.growPool(args[0], uint64(size), uint64(metadata)))
		},
	}
	cmd.Flags().Var(&size, "size", "new total size of the data file")
	cmd.Flags().Var(&metadata, "metadata-size", "new total size of the metadata file")
	return cmd
}

// growPool enlarges the files of a pool and tells the pool.
func (m *maker) growPool(name string, size, metadata uint64) error {
	d, err := m.device(name)
	if err != nil {
		return err
	}
	l, err := lineOf[*thin.PoolLine](d, "a pool")
	if err != nil {
		return err
	}
	if err := growFile(d, l.Metadata, metadata); err != nil {
		return err
	}
	if err := growFile(d, l.Data, size); err != nil {
		return err
	}
	if size != 0 {
		d.Sectors = size / l.BlockSectors * l.BlockSectors
	}
	return m.replace(d, l)
}

// growFile enlarges the file that a device stands on to so many sectors; 0
// leaves it.
func growFile(d ctl.Device, name string, sectors uint64) error {
	if sectors == 0 {
		return nil
	}
	dep, _ := depNamed(d, name)
	info, err := os.Stat(dep.Source)
	switch {
	case err != nil || !info.Mode().IsRegular():
		return fmt.Errorf("%s is on %s, which is not a file; enlarge that first, then load a longer table", d.Name, depName(dep))
	case info.Size() > int64(sectors)*blk.SectorSize:
		return fmt.Errorf("%s is already %s large; a pool cannot shrink", dep.Source, formatSectors(uint64(info.Size())/blk.SectorSize))
	}
	return os.Truncate(dep.Source, int64(sectors)*blk.SectorSize)
}

func poolStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [POOL]...",
		Short: "Show how full pools are, and warn about pools that are nearly full",
		Example: `  udm pool status
  udm pool status fast --json`,
		ValidArgsFunction: completeDevices,
		RunE:              runPoolStatus,
	}
	addJSON(cmd)
	return cmd
}

func runPoolStatus(cmd *cobra.Command, args []string) error {
	ds, err := devicesNamed(cmd, args)
	if err != nil {
		return err
	}
	var pools []ctl.Device
	for _, d := range ds {
		if _, err := lineOf[*thin.PoolLine](d, "a pool"); err == nil {
			pools = append(pools, d)
		} else if len(args) > 0 {
			return err
		}
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, withFullness(pools))
	}
	if len(pools) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "There are no pools. Create one: udm pool create POOL --size SIZE")
		return err
	}
	return printPools(cmd, pools)
}

func printPools(cmd *cobra.Command, pools []ctl.Device) error {
	rows := [][]string{{"POOL", "SIZE", "MODE", "DATA", "METADATA"}}
	var warnings []string
	for _, d := range pools {
		row := []string{d.Name, formatSectors(d.Sectors), poolMode(d), "", ""}
		for i, f := range full(d) {
			row[3+min(i, 1)] = f.amount()
			warnings = append(warnings, poolWarning(d.Name, f)...)
		}
		rows = append(rows, row)
	}
	if err := printTable(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	for _, w := range warnings {
		fmt.Fprintln(cmd.OutOrStdout(), w)
	}
	return nil
}

// poolMode is the mode in a pool's status line.
func poolMode(d ctl.Device) string {
	if len(d.Status) == 0 {
		return stateOf(d)
	}
	s, ok := statusOf(d.Status[0]).(*thin.PoolStatus)
	switch {
	case !ok:
		return d.Status[0].Params
	case s.State != thin.Figures:
		return string(s.State)
	}
	return string(s.Mode)
}

// nearlyFull is the share from which on a pool is warned about.
const nearlyFull = 0.8

func poolWarning(name string, f fullness) []string {
	option := map[string]string{"data": "--size", "metadata": "--metadata-size"}[f.What]
	if option == "" || f.share() < nearlyFull {
		return nil
	}
	return []string{fmt.Sprintf("WARNING: the %s of %s is %.0f%% full; enlarge it: udm pool grow %s %s SIZE", f.What, name, f.share()*100, name, option)}
}

func poolRmCommand() *cobra.Command {
	var deleteFiles bool
	cmd := &cobra.Command{
		Use:   "rm POOL",
		Short: "Remove a pool; its files stay unless --delete-files is given",
		Example: `  udm pool rm fast
  udm pool rm fast --delete-files    # with everything in it`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := newMaker(cmd)
			if err != nil {
				return err
			}
			defer m.Close()
			return m.removePool(args[0], deleteFiles)
		},
	}
	cmd.Flags().BoolVar(&deleteFiles, "delete-files", false, "delete the files of the pool, with all its volumes")
	return cmd
}

func (m *maker) removePool(name string, deleteFiles bool) error {
	d, err := m.device(name)
	if err != nil {
		return err
	}
	if _, err := lineOf[*thin.PoolLine](d, "a pool"); err != nil {
		return err
	}
	users, err := m.users(d.Number)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return fmt.Errorf("%s has %d active volumes, such as %s; remove them first", name, len(users), users[0].Name)
	}
	if err := m.remove(name); err != nil {
		return explain(name, err)
	}
	var errs []error
	for _, dep := range d.Deps {
		if deleteFiles && dep.Source != "" {
			errs = append(errs, os.Remove(dep.Source))
		}
	}
	return errors.Join(errs...)
}

// metadataSize is how many sectors of metadata a pool of so many blocks needs
// with a thousand volumes.
func metadataSize(blocks, block uint64) uint64 {
	bytes := thintools.MetadataSize(block*blk.SectorSize, blocks*block*blk.SectorSize, 1000)
	sectors := (bytes/blk.SectorSize + 7) / 8 * 8
	return min(max(sectors, minMetadata), maxMetadata)
}
