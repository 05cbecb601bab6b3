package main

import (
	"fmt"
	"io"
	"net/url"
	"path/filepath"

	"github.com/spf13/cobra"

	"udm/blk"
	"udm/ctl"
)

func statusCommand() *cobra.Command {
	var clients, problems bool
	cmd := &cobra.Command{
		Use:   "status [DEVICE]...",
		Short: "Show problems, and the table, status and address of devices",
		Long: `status shows what is wrong, with the commands that fix it, and then devices. Problems are the
alerts for Prometheus that hold now, in the same words; the log of the daemon and its page
tell them, too. Of devices that are named, only their own problems are shown.`,
		Example: `  udm status
  udm status disk
  udm status --problems        # nothing else; with --json for programs
  udm status --clients         # who uses them, by which socket, mount or block device
  udm status --json | jq '.[].status'`,
		ValidArgsFunction: completeDevices,
		RunE: func(cmd *cobra.Command, args []string) error {
			if clients {
				return runClients(cmd, args)
			}
			if problems {
				return runProblems(cmd, args)
			}
			return runStatus(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&clients, "clients", false, "show what the daemon serves, and to whom")
	cmd.Flags().BoolVar(&problems, "problems", false, "show only problems")
	cmd.MarkFlagsMutuallyExclusive("clients", "problems")
	addJSON(cmd)
	return cmd
}

func runStatus(cmd *cobra.Command, args []string) error {
	ds, err := devicesNamed(cmd, args)
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, withFullness(ds))
	}
	root, err := rootOf(cmd)
	if err != nil {
		return err
	}
	problems, err := problemsOf(cmd, args)
	if err != nil {
		return err
	}
	printProblems(cmd.OutOrStdout(), problems)
	for i, d := range ds {
		if i > 0 || len(problems) > 0 {
			fmt.Fprintln(cmd.OutOrStdout())
		}
		printStatus(cmd.OutOrStdout(), root, d)
	}
	return nil
}

// devicesNamed returns the devices named on a command line, or all.
func devicesNamed(cmd *cobra.Command, names []string) ([]ctl.Device, error) {
	client, err := clientOf(cmd)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	q := ctl.Query{With: []ctl.With{ctl.WithTable, ctl.WithStatus, ctl.WithDeps}, Noflush: true}
	if err := tellRestoring(cmd, client); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return client.List(cmd.Context(), q)
	}
	var ds []ctl.Device
	for _, name := range names {
		q.Name = name
		d, err := client.Device(cmd.Context(), q)
		if err != nil {
			return nil, explain(name, found(name, err))
		}
		ds = append(ds, d)
	}
	return ds, nil
}

func printStatus(w io.Writer, root string, d ctl.Device) {
	fmt.Fprintf(w, "%s\n", d.Name)
	line := func(what, value string) {
		if value != "" {
			fmt.Fprintf(w, "  %-9s %s\n", what, value)
		}
	}
	line("state", d.StateText())
	line("waits", d.Waiting)
	line("size", fmt.Sprintf("%s (%d sectors)", formatSectors(d.Sectors), d.Sectors))
	line("number", d.Number.String())
	line("uuid", d.UUID)
	line("open", opens(d))
	line("events", fmt.Sprint(d.Event))
	for _, l := range d.Table {
		line("table", l.String())
	}
	for _, l := range d.Status {
		line("status", l.String())
	}
	for _, h := range hitsOf(d) {
		line("hits", h.String())
	}
	for _, dep := range d.Deps {
		line("on", fmt.Sprintf("%s (%s)", depName(dep), dep.Number))
		if dep.Report != nil {
			line("", reportText(dep.Report))
		}
	}
	for _, f := range full(d) {
		line("full", f.String())
	}
	if d.Live {
		line("attach", nbdURI(root, d.Name))
	}
}

// reportText describes the condition of a remote disk, or of one that may run out of space.
func reportText(r *blk.Report) string {
	if r.Lacks > 0 {
		return fmt.Sprintf("%s: its file system has %s left, and it may need %s more", r.State, formatBytes(r.Free), formatBytes(r.Lacks))
	}
	text := fmt.Sprintf("%s, %d connections, %d reconnects, %d requests in flight", r.State, r.Connections, r.Reconnects, r.UnderWay)
	if r.Why != "" {
		text += ": " + r.Why
	}
	return text
}

// nbdURI is the NBD address of a device.
func nbdURI(root, name string) string {
	return "nbd+unix:///" + url.PathEscape(name) + "?socket=" + filepath.Join(root, ctl.NBDSocket)
}
