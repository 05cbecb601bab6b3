package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"udm/ctl/server/web"
)

// check is the result of checking one property of the machine.
type check = web.Check

// examineForPage examines the machine for the daemon's page.
func examineForPage() []check { return thisMachine().examine() }

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check what this machine lacks for udm, and how to fix it",
		Long: `doctor checks for everything that udm uses on a machine: FUSE, loop and nbd devices,
io_uring, limits of open files and locked memory, and kernel parameters. For each missing
item it prints what does not work without it, and the command that fixes it. NBD, virtual
machines and the commands need none of these. The exit code is 1 if anything is missing.
The checks apply to the current user and session: run it as the user of the daemon.`,
		Example: `  udm doctor
  udm doctor --json | jq '.[] | select(.ok | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := thisMachine().examine()
			if err := printChecks(cmd, checks); err != nil {
				return err
			}
			for _, c := range checks {
				if !c.OK {
					return exitCode(1)
				}
			}
			return nil
		},
	}
	addJSON(cmd)
	return cmd
}

func printChecks(cmd *cobra.Command, checks []check) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, checks)
	}
	w := cmd.OutOrStdout()
	for _, c := range checks {
		if c.OK {
			fmt.Fprintf(w, "ok       %s\n", c.Name)
			continue
		}
		fmt.Fprintf(w, "missing  %s: %s\n         without it: %s\n         to fix it: %s\n", c.Name, c.Problem, c.Without, c.Command)
	}
	return nil
}
