package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/blk/partition"
	"udm/env"
)

func partitionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "partitions DISK",
		Short: "List the partitions of a disk or an image",
		Long: `List the partitions of a disk: a file, a block device, or any other name that a
table may have for a disk. Start and size are in sectors of 512 bytes. In a table,
"part:N:DISK" is partition N; DISK must be an absolute path there.

GPT and MBR with blocks of 512 and 4096 bytes are supported. Damage is reported.`,
		Example: `  udm partitions disk.img
  udm partitions --json nbd://host/disk
  udm dmsetup create root --table "0 2097152 linear part:1:/srv/disk.img 0"`,
		Args: cobra.ExactArgs(1),
		RunE: runPartitions,
	}
	addJSON(cmd)
	return cmd
}

func runPartitions(cmd *cobra.Command, args []string) error {
	return withDisk(args[0], false, func(d blk.Device) error {
		t, err := partition.Read(env.Real(), d)
		if err != nil {
			return err
		}
		if wantsJSON(cmd) {
			return printJSON(cmd, t)
		}
		return printPartitions(cmd, t)
	})
}

func printPartitions(cmd *cobra.Command, t *partition.Table) error {
	for _, why := range t.Damage {
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: warning: %s\n", why)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s %s, blocks of %d bytes\n", t.Kind, t.ID, t.Block)
	rows := [][]string{{"NUMBER", "START", "SECTORS", "SIZE", "TYPE", "BOOT", "NAME"}}
	for _, p := range t.Partitions {
		boot := ""
		if p.Bootable {
			boot = "yes"
		}
		rows = append(rows, []string{
			strconv.Itoa(p.Number), strconv.FormatUint(p.Start, 10), strconv.FormatUint(p.Sectors, 10),
			formatSectors(p.Sectors), p.Type, boot, p.Name,
		})
	}
	return printTable(cmd.OutOrStdout(), rows)
}
