package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/ctl"
)

func limitCommand() *cobra.Command {
	var l ctl.Limit
	var remove bool
	cmd := &cobra.Command{
		Use:   "limit [DEVICE]",
		Short: "Limit the I/Os and bytes per second of devices or groups of devices",
		Long: `limit bounds the I/Os and bytes per second of a device's clients. Further I/O waits. A
burst may pass at once after a pause; by default it is a tenth of a second's worth. There
is no limit for options that are not given. Without a device, the limit applies to a group,
whose devices share it fairly. A device may have its own limits and also belong to a group.
Limits can be changed while devices are in use, and persist across restarts.

Without options, limit lists all limits.`,
		Example: `  udm limit web1 --read-iops 500 --write-bytes 20M --write-bytes-burst 100M
  udm limit --group tenant --write-iops 2000
  udm limit web2 --group tenant
  udm limit web1 --remove
  udm limit`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				l.Device = args[0]
			}
			return runLimit(cmd, l, remove)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&l.Group, "group", "", "the group to which the device or the limit belongs")
	addRate(fl, "read", &l.Read)
	addRate(fl, "write", &l.Write)
	fl.BoolVar(&remove, "remove", false, "remove the limits of the device, or the group")
	addJSON(cmd)
	return cmd
}

// addRate adds the options for reads or writes.
func addRate(fl *pflag.FlagSet, what string, r *ctl.Rate) {
	fl.Uint64Var(&r.IOPS, what+"-iops", 0, what+"s per second")
	fl.Uint64Var(&r.IOPSBurst, what+"-iops-burst", 0, what+"s in a burst")
	fl.Var((*bytesFlag)(&r.Bytes), what+"-bytes", "bytes "+past[what]+" per second")
	fl.Var((*bytesFlag)(&r.BytesBurst), what+"-bytes-burst", "bytes "+past[what]+" in a burst")
}

var past = map[string]string{"read": "read", "write": "written"}

func runLimit(cmd *cobra.Command, l ctl.Limit, remove bool) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	bounds := l.Read != (ctl.Rate{}) || l.Write != (ctl.Rate{})
	switch {
	case remove && bounds:
		return usagef(cmd, "use either --remove or limits, not both")
	case remove && l.Device == "" && l.Group == "":
		return usagef(cmd, "--remove requires a device or --group")
	case remove && l.Device != "":
		return client.Limit(cmd.Context(), ctl.Limit{Device: l.Device})
	case remove || bounds || l.Device != "" && l.Group != "":
		return client.Limit(cmd.Context(), l)
	}
	return listLimits(cmd, client, l)
}

// listLimits prints the limits of a device or group, or all limits.
func listLimits(cmd *cobra.Command, client *ctl.Client, only ctl.Limit) error {
	all, err := client.Limits(cmd.Context())
	if err != nil {
		return err
	}
	list := make([]ctl.Limit, 0)
	for _, l := range all {
		if (only.Device == "" || only.Device == l.Device) && (only.Group == "" || only.Group == l.Group) {
			list = append(list, l)
		}
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, list)
	}
	rows := [][]string{{"DEVICE", "GROUP", "READS/S", "READ BYTES/S", "WRITES/S", "WRITTEN BYTES/S"}}
	for _, l := range list {
		rows = append(rows, []string{l.Device, l.Group, count(l.Read.IOPS, l.Read.IOPSBurst), size(l.Read.Bytes, l.Read.BytesBurst),
			count(l.Write.IOPS, l.Write.IOPSBurst), size(l.Write.Bytes, l.Write.BytesBurst)})
	}
	return printTable(cmd.OutOrStdout(), rows)
}

// count formats a limit of I/Os with its burst, or returns "" if there is no limit.
func count(n, burst uint64) string {
	return bound(n, burst, func(n uint64) string { return fmt.Sprint(n) })
}

func size(n, burst uint64) string { return bound(n, burst, formatBytes) }

func bound(n, burst uint64, format func(uint64) string) string {
	switch {
	case n == 0:
		return ""
	case burst == 0:
		return format(n)
	}
	return format(n) + ", burst " + format(burst)
}

// bytesFlag is a command-line flag with a size, in bytes.
type bytesFlag uint64

func (f *bytesFlag) String() string {
	if *f == 0 {
		return ""
	}
	return formatBytes(uint64(*f))
}

func (f *bytesFlag) Set(s string) error {
	var sectors sectorsFlag
	err := sectors.Set(s)
	*f = bytesFlag(sectors.bytes())
	return err
}

func (f *bytesFlag) Type() string { return "SIZE" }
