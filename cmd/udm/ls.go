package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
)

func lsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Aliases: []string{"list"},
		Short:   "List devices with size, state, targets, lower devices and usage",
		Example: `  udm ls
  udm ls vm-            # names that begin with vm-
  udm ls --json`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeDevices,
		RunE:              runLs,
	}
	addJSON(cmd)
	return cmd
}

func runLs(cmd *cobra.Command, args []string) error {
	client, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	q := ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithStatus, ctl.WithDeps}, Noflush: true}
	if len(args) > 0 {
		q.Name = args[0]
	}
	ds, err := client.List(cmd.Context(), q)
	if err != nil {
		return err
	}
	if err := tellRestoring(cmd, client); err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, withFullness(ds))
	}
	if len(ds) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "There are no devices. Create one: udm create NAME --table TABLE, or: udm clone IMAGE NAME")
		return err
	}
	return printTable(cmd.OutOrStdout(), listRows(ds))
}

// tellRestoring says, beside the answer, that a daemon that was just started has not
// got all of its devices yet.
func tellRestoring(cmd *cobra.Command, client *ctl.Client) error {
	v, err := client.Version(cmd.Context())
	if err == nil && v.Restoring != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: the daemon is restoring its devices: %s\n", v.Restoring)
	}
	return err
}

func listRows(ds []ctl.Device) [][]string {
	rows := [][]string{{"NAME", "SIZE", "STATE", "MAPS", "ON", "OPEN", "FULL"}}
	for _, d := range ds {
		open := ""
		if d.Opens > 0 {
			open = fmt.Sprint(d.Opens)
		}
		rows = append(rows, []string{d.Name, formatSectors(d.Sectors), stateOf(d), kinds(d), below(d), open, bars(d)})
	}
	return rows
}

// stateOf is a device's state in a word or two.
func stateOf(d ctl.Device) string {
	state := "active"
	switch {
	case d.Waiting != "":
		state = "waiting"
	case d.Suspended:
		state = "suspended"
	case !d.Live:
		state = "no table"
	}
	if d.ReadOnly {
		state += " ro"
	}
	if d.DeferredRemove {
		state += " removing"
	}
	return state
}

// kinds are the targets of a device, each once.
func kinds(d ctl.Device) string {
	var names []string
	for _, l := range d.Table {
		if !slices.Contains(names, l.Target) {
			names = append(names, l.Target)
		}
	}
	return strings.Join(names, "+")
}

// below are the devices and files that a device stands on, in the order of its
// table.
func below(d ctl.Device) string {
	var names []string
	for _, dep := range slices.Backward(d.Deps) {
		names = append(names, filepath.Base(depName(dep)))
	}
	return strings.Join(names, " ")
}

func depName(d ctl.Dep) string {
	switch {
	case d.Map != "":
		return d.Map
	case d.Source != "":
		return d.Source
	}
	return d.Name
}

// completeDevices offers the names of devices to the shell.
func completeDevices(cmd *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	client, err := clientOf(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer client.Close()
	ds, err := client.List(cmd.Context(), ctl.Query{Ref: ctl.Ref{Name: prefix}})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, d := range ds {
		names = append(names, d.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
