package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// addJSON gives a command the option --json.
func addJSON(cmd *cobra.Command) { cmd.Flags().Bool("json", false, "print JSON, for programs") }

// wantsJSON reports whether --json was given.
func wantsJSON(cmd *cobra.Command) bool {
	on, err := cmd.Flags().GetBool("json")
	return err == nil && on
}

// printJSON prints v for programs.
func printJSON(cmd *cobra.Command, v any) error {
	e := json.NewEncoder(cmd.OutOrStdout())
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// say prints v for programs, or a text for people.
func say(cmd *cobra.Command, v any, format string, args ...any) error {
	if wantsJSON(cmd) {
		return printJSON(cmd, v)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format, args...)
	return err
}

// printTable prints rows, the first of which are the headings. Columns that are empty
// in all other rows are left out.
func printTable(w io.Writer, rows [][]string) error {
	var text strings.Builder
	tw := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if used(rows, i) {
				fmt.Fprint(tw, cell, "\t")
			}
		}
		fmt.Fprintln(tw)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(text.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func used(rows [][]string, column int) bool {
	for _, row := range rows[1:] {
		if row[column] != "" {
			return true
		}
	}
	return false
}

// barWidth is how many characters a bar has.
const barWidth = 10

// bar shows used/total: [####······]  42%.
func bar(used, total uint64) string {
	if total == 0 {
		return ""
	}
	share := float64(used) / float64(total)
	n := min(barWidth, int(math.Ceil(share*barWidth)))
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", n), strings.Repeat("·", barWidth-n), math.Floor(share*100))
}
