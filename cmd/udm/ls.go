package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/targets/multipath"
	"udm/volume"
)

func lsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Aliases: []string{"list"},
		Short:   "List devices with kind, size, state, lower devices and usage",
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
	prefix := ""
	if len(args) > 0 {
		prefix = args[0]
	}
	ds, err := list(cmd.Context(), client, prefix)
	if err != nil {
		return err
	}
	if err := tellRestoring(cmd, client); err != nil {
		return err
	}
	if len(ds) == 0 && prefix != "" {
		return noneListed(cmd, fmt.Errorf("no device has a name that begins with %q; udm ls lists all", prefix))
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, ds)
	}
	if len(ds) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "There are no devices. Create one: udm create NAME --table TABLE, or: udm clone IMAGE NAME")
		return err
	}
	return printTable(cmd.OutOrStdout(), listRows(ds))
}

// noneExit is the exit code of a list without entries, as of ls(1).
const noneExit = 2

// noneListed is the error for an empty list. For programs it also prints an empty
// list.
func noneListed(cmd *cobra.Command, why error) error {
	if wantsJSON(cmd) {
		if err := printJSON(cmd, []listed{}); err != nil {
			return err
		}
	}
	fmt.Fprintln(cmd.ErrOrStderr(), "udm:", why)
	return exitCode(noneExit)
}

// listed is an object with its device.
type listed struct {
	ctl.Device
	volume.Description
	Full []fullness `json:"full,omitempty"`
}

// list returns the objects whose names have a prefix. Devices made below an object
// are part of it.
func list(ctx context.Context, s ctl.Service, prefix string) ([]listed, error) {
	objects, err := s.Objects(ctx)
	if err != nil {
		return nil, err
	}
	ds, err := s.List(ctx, ctl.Query{Ref: ctl.Ref{Name: prefix}, With: []ctl.With{ctl.WithTable, ctl.WithStatus, ctl.WithDeps}, Noflush: true})
	if err != nil {
		return nil, err
	}
	byName := make(map[string]ctl.Device)
	for _, d := range ds {
		byName[d.Name] = d
	}
	all := make([]listed, 0)
	for _, o := range objects {
		if d, ok := byName[o.Name]; ok {
			all = append(all, listed{d, o.Description, full(d)})
		}
	}
	return all, nil
}

// tellRestoring warns that a daemon that was just started has not restored all of its
// devices yet.
func tellRestoring(cmd *cobra.Command, client *ctl.Client) error {
	v, err := client.Version(cmd.Context())
	if err == nil && v.Restoring != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: the daemon is restoring its devices: %s\n", v.Restoring)
	}
	return err
}

func listRows(ds []listed) [][]string {
	rows := [][]string{{"NAME", "KIND", "SIZE", "STATE", "MAPS", "ON", "OPEN", "FULL"}}
	for _, d := range ds {
		open := ""
		if d.Opens > 0 {
			open = fmt.Sprint(d.Opens)
		}
		state := d.StateText()
		if d.State != "active" && d.State != "suspended" && d.Live {
			state = d.State
		}
		if failed, all := pathsOf(d.Device); failed > 0 {
			state += fmt.Sprintf(", %d of %d paths failed", failed, all)
		}
		rows = append(rows, []string{d.Name, string(d.Kind), formatSectors(d.Sectors), state, kinds(d.Device), below(d.Device), open, bars(d.Device)})
	}
	return rows
}

// pathsOf returns how many paths of a device have failed, and how many it has.
func pathsOf(d ctl.Device) (failed, all int) {
	for _, l := range d.Status {
		if s, ok := statusOf(l).(*multipath.Status); ok {
			return s.Failed() // the only target of its table
		}
	}
	return 0, 0
}

// kinds are the target types of a device, without repetition.
func kinds(d ctl.Device) string {
	var names []string
	for _, l := range d.Table {
		if !slices.Contains(names, l.Target) {
			names = append(names, l.Target)
		}
	}
	return strings.Join(names, "+")
}

// below returns the devices and files that a device uses, in the order of its table.
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

// completeDevices completes names of devices for the shell.
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
