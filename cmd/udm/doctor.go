package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// check is one thing that a machine should have.
type check struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Problem is what is wrong, Without is what does not work then, and Command mends it.
	Problem string `json:"problem,omitempty"`
	Without string `json:"without,omitempty"`
	Command string `json:"command,omitempty"`
}

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this machine lacks for udm, and the command that mends it",
		Long: `doctor looks for what udm uses of this machine: FUSE, loop and nbd devices, io_uring,
limits of open files and of locked memory, and kernel parameters. For what is missing it
tells what does not work without it, and the command that mends it. NBD, virtual machines
and the commands need none of it. The exit code is 1 if something is missing. It asks for
this user in this session: run it as the user of the daemon.`,
		Example: `  udm doctor
  udm doctor --json | jq '.[] | select(.ok | not)'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := thisMachine().examine()
			if err := tellChecks(cmd, checks); err != nil {
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

func tellChecks(cmd *cobra.Command, checks []check) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, checks)
	}
	w := cmd.OutOrStdout()
	for _, c := range checks {
		if c.OK {
			fmt.Fprintf(w, "ok       %s\n", c.Name)
			continue
		}
		fmt.Fprintf(w, "missing  %s: %s\n         without it: %s\n         mend it: %s\n", c.Name, c.Problem, c.Without, c.Command)
	}
	return nil
}
