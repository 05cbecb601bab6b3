package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/targets/thin"
	"udm/volume"
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

func poolCreateCommand() *cobra.Command {
	var s volume.PoolSpec
	var size, metadata sectorsFlag
	block := sectorsFlag(128)
	cmd := &cobra.Command{
		Use:   "create POOL --size SIZE",
		Short: "Create a pool",
		Example: `  udm pool create fast --size 100G
  udm pool create big --size 2T --block 1M --dir /srv/big`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if size == 0 {
				return usagef(cmd, "--size is missing")
			}
			if s.Dir, err = absolute(s.Dir); err != nil {
				return err
			}
			s.Name, s.Size, s.Metadata, s.Block = args[0], size.bytes(), metadata.bytes(), block.bytes()
			return operate(cmd, args, func(ctx context.Context, c *ctl.Client) error { return c.CreatePool(ctx, s) })
		},
	}
	fl := cmd.Flags()
	fl.Var(&size, "size", "size of the data file (required)")
	fl.Var(&metadata, "metadata-size", "size of the metadata file (default: enough for this pool)")
	fl.Var(&block, "block", "unit of allocation, from 64K to 1G")
	fl.StringVar(&s.Dir, "dir", "", "directory for the files of the pool (default ROOT/pools/POOL)")
	fl.BoolVar(&s.FailWhenFull, "error-if-no-space", false, "when the pool is full, fail writes at once instead of waiting for it to grow")
	addJSON(cmd)
	return cmd
}

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
			if size == 0 && metadata == 0 {
				return usagef(cmd, "--size or --metadata-size is missing")
			}
			return operate(cmd, args, func(ctx context.Context, c *ctl.Client) error {
				return c.GrowPool(ctx, ctl.GrowPool{Name: args[0], Size: size.bytes(), Metadata: metadata.bytes()})
			})
		},
	}
	cmd.Flags().Var(&size, "size", "new total size of the data file")
	cmd.Flags().Var(&metadata, "metadata-size", "new total size of the metadata file")
	addJSON(cmd)
	return cmd
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
		if len(d.Table) == 1 && d.Table[0].Target == "thin-pool" {
			pools = append(pools, d)
		} else if len(args) > 0 {
			return fmt.Errorf("%s is not a pool; udm status %s shows what it is", d.Name, d.Name)
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
		return d.StateText()
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

// nearlyFull is the share of used space above which a warning is printed.
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
			return removeObjects(cmd, args, volume.RemoveSpec{Kind: volume.Pool, Keep: !deleteFiles, All: deleteFiles})
		},
	}
	cmd.Flags().BoolVar(&deleteFiles, "delete-files", false, "delete the files of the pool, with all its volumes")
	return cmd
}
