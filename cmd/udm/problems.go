package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"udm/ctl"
)

// runProblems shows only problems.
func runProblems(cmd *cobra.Command, names []string) error {
	list, err := problemsOf(cmd, names)
	if err != nil {
		return err
	}
	if wantsJSON(cmd) {
		return printJSON(cmd, list)
	}
	if len(list) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "no problems")
	}
	printProblems(cmd.OutOrStdout(), list)
	return nil
}

// problemsOf returns the problems of devices, or all.
func problemsOf(cmd *cobra.Command, names []string) ([]ctl.Problem, error) {
	client, err := clientOf(cmd)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	list, err := client.Problems(cmd.Context())
	if errors.Is(err, syscall.ENOTTY) { // a daemon that is older than this program
		return nil, nil
	}
	if len(names) > 0 {
		list = slices.DeleteFunc(list, func(p ctl.Problem) bool { return !slices.Contains(names, p.Labels["device"]) })
	}
	return list, err
}

// printProblems prints problems, with the commands that fix them.
func printProblems(w io.Writer, list []ctl.Problem) {
	indent := strings.Repeat(" ", len("critical"))
	for _, p := range list {
		fmt.Fprintf(w, "%-*s  %s\n", len(indent), p.Severity, printable(p.Summary))
		for _, text := range []string{p.Description, p.Detail, p.Command} {
			if text != "" {
				fmt.Fprintf(w, "%s  %s\n", indent, printable(text))
			}
		}
	}
}
