package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"udm/ctl"
	"udm/dm"
	"udm/targets/all"
)

func targetsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "targets [TYPE]",
		Short: "List the target types, or show the manual of one",
		Example: `  udm targets
  udm targets linear`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeTargets,
		RunE:              runTargets,
	}
	addJSON(cmd)
	return cmd
}

func runTargets(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return listTargets(cmd)
	}
	for _, t := range all.Types() {
		if t.Name == args[0] {
			if wantsJSON(cmd) {
				return printJSON(cmd, targetOf(t))
			}
			_, err := fmt.Fprint(cmd.OutOrStdout(), t.Doc)
			return err
		}
	}
	return fmt.Errorf("there is no target type named %q; udm targets lists the types", args[0])
}

func targetOf(t *dm.Type) ctl.Target {
	return ctl.Target{Name: t.Name, Version: t.Version, Doc: t.Doc}
}

func listTargets(cmd *cobra.Command) error {
	var ts []ctl.Target
	rows := [][]string{{"TYPE", "VERSION", ""}}
	for _, t := range all.Types() {
		ts = append(ts, targetOf(t))
		headline, _, _ := strings.Cut(t.Doc, "\n")
		_, headline, _ = strings.Cut(headline, ": ")
		rows = append(rows, []string{t.Name, fmt.Sprintf("%d.%d.%d", t.Version[0], t.Version[1], t.Version[2]), headline})
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, ts)
	}
	return printTable(cmd.OutOrStdout(), rows)
}

func completeTargets(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	var names []string
	for _, t := range all.Types() {
		names = append(names, t.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
