package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// runClients shows what the daemon serves and to whom, for some devices or for all.
func runClients(cmd *cobra.Command, devices []string) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	list, err := client.FrontEnds(cmd.Context())
	if err != nil {
		return err
	}
	if len(devices) > 0 {
		for i := range list {
			list[i].Clients = slices.DeleteFunc(list[i].Clients, func(c ctl.FrontEndClient) bool { return !slices.Contains(devices, c.Device) })
		}
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, list)
	}
	return printTable(cmd.OutOrStdout(), clientRows(list))
}

// clientRows returns a row for each client, and one for a front end without clients.
func clientRows(list []ctl.FrontEnd) [][]string {
	rows := [][]string{{"FRONT END", "AT", "EXPORTS", "DEVICE", "CLIENT", "MODE"}}
	for _, f := range list {
		exports := ""
		if f.Exports > 0 {
			exports = fmt.Sprint(f.Exports)
		}
		rows = append(rows, []string{f.Name, strings.Join(f.Addresses, " "), exports, "", "", ""})
		for _, c := range f.Clients {
			mode := ""
			if c.ReadOnly {
				mode = "read-only"
			}
			if c.Stalled > 0 {
				mode = strings.TrimSpace(fmt.Sprintf("%s takes no answers for %d s", mode, c.Stalled))
			}
			rows = append(rows, []string{"", "", "", c.Device, c.Address, mode})
		}
	}
	return rows
}

// opens describes how often a device is open, and by what kinds of holders.
func opens(d ctl.Device) string {
	var kinds []string
	for _, who := range slices.Sorted(maps.Keys(d.Holders)) {
		kinds = append(kinds, fmt.Sprint(who, " ", d.Holders[who]))
	}
	if len(kinds) == 0 {
		return fmt.Sprint(d.Opens)
	}
	return fmt.Sprintf("%d (%s)", d.Opens, strings.Join(kinds, ", "))
}
