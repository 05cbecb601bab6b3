package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/volume"
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
				return usagef(cmd, "--size is missing")
			}
			return operate(cmd, args[1:], func(ctx context.Context, c *ctl.Client) error {
				return c.CreateVolume(ctx, ctl.CreateVolume{Pool: args[0], Name: args[1], Size: size.bytes()})
			})
		},
	}
	cmd.Flags().Var(&size, "size", "size of the volume (required)")
	addJSON(cmd)
	return cmd
}

func volumeRmCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "rm NAME...",
		Short:             "Delete volumes and return their space to the pool",
		Example:           `  udm volume rm db-monday`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			return removeObjects(cmd, args, volume.RemoveSpec{Kind: volume.Volume})
		},
	}
}

func volumeResizeCommand() *cobra.Command {
	return resizing(volume.Volume, &cobra.Command{
		Use:   "resize NAME --size SIZE",
		Short: "Change the size of a volume while it is in use",
		Example: `  udm volume resize db --size 2T
  udm volume resize db --size 500G --shrink`,
	})
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

func runVolumeLs(cmd *cobra.Command, args []string) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	all, err := list(cmd.Context(), client, "")
	if err != nil {
		return err
	}
	vs := make([]listed, 0)
	rows := [][]string{{"VOLUME", "POOL", "ID", "SIZE", "OPEN", "TAKEN"}}
	for _, d := range all {
		if d.Kind != volume.Volume || len(args) > 0 && d.Pool != args[0] {
			continue
		}
		vs = append(vs, d)
		rows = append(rows, []string{d.Name, d.Pool, fmt.Sprint(*d.ID), formatSectors(d.Sectors), fmt.Sprint(d.Opens), bars(d.Device)})
	}
	if len(vs) == 0 && len(args) > 0 {
		return noneListed(cmd, fmt.Errorf("there is no volume in a pool named %q; udm volume ls lists all", args[0]))
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
