package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"udm/blk/leaf"
)

// usageExit is the exit code for an invalid command line. Nothing has been done then.
const usageExit = 2

// usageError says what is wrong with a command line.
type usageError struct {
	cmd  *cobra.Command
	text string
}

func (e *usageError) Error() string { return e.text }

func usagef(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{cmd, fmt.Sprintf(format, args...)}
}

// print prints what is wrong and how the command is used.
func (e *usageError) print(w io.Writer) {
	line := strings.TrimSuffix(e.cmd.UseLine(), " [flags]")
	if e.cmd.HasAvailableSubCommands() {
		line += " COMMAND"
	}
	fmt.Fprintf(w, "udm: %s\nusage: %s\n", oneLine(e), line)
	fmt.Fprintf(w, "see %s --help\n", e.cmd.CommandPath())
}

// explainUsage makes a command and its subcommands explain wrong operands and
// options.
func explainUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(wrongFlag)
	cmd.DisableSuggestions = true // done here
	if check := cmd.Args; check != nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return wrongOperands(cmd, args, err)
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		explainUsage(sub)
	}
}

// operand is a word of a usage line that stands for one or more operands.
type operand struct {
	name           string
	optional, many bool
}

// operandsOf reads those of a usage line: NAME [FILE], NAME..., [DEVICE]..., VG[/LV], POOL
// operandsOf parses the operands in a usage line such as NAME [FILE], NAME...,
// [DEVICE]..., VG[/LV], or POOL --size SIZE.
func operandsOf(use string) (ops []operand) {
	words := strings.Fields(use)[1:]
	for i := 0; i < len(words); i++ {
		name, many := cutRepeated(words[i])
		optional := strings.HasPrefix(name, "[")
		inner := name
		if optional {
			inner = strings.Trim(name, "[]")
		}
		if strings.HasPrefix(inner, "-") {
			i++ // the option's value
			continue
		}
		ops = append(ops, operand{inner, optional, many})
	}
	return ops
}

func cutRepeated(word string) (name string, many bool) {
	for _, dots := range []string{"...", "…"} {
		if name, ok := strings.CutSuffix(word, dots); ok {
			return name, true
		}
	}
	return word, false
}

// wrongOperands says which operands are missing or too many, or returns err.
func wrongOperands(cmd *cobra.Command, args []string, err error) error {
	if cmd.HasSubCommands() {
		return unknownCommand(cmd, args[0])
	}
	var missing []string
	ops := operandsOf(cmd.Use)
	for i, op := range ops {
		if i >= len(args) && !op.optional {
			missing = append(missing, op.name)
		}
	}
	switch {
	case len(missing) == 1:
		return usagef(cmd, "%s is missing", missing[0])
	case len(missing) > 1:
		last := len(missing) - 1
		return usagef(cmd, "%s and %s are missing", strings.Join(missing[:last], ", "), missing[last])
	case len(args) > len(ops):
		return usagef(cmd, "unexpected operand %q%s", args[len(ops)], meantOption(cmd, args, len(ops)))
	}
	return usagef(cmd, "%v", err)
}

// meantOption suggests --size for a size given as an operand.
func meantOption(cmd *cobra.Command, args []string, n int) string {
	size := cmd.Flags().Lookup("size")
	if _, err := leaf.ParseSize(args[n]); err != nil || size == nil || size.Changed || len(args) > n+1 {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", strings.Join(append([]string{cmd.CommandPath()}, slices.Concat(args[:n], []string{"--size", args[n]})...), " "))
}

// wrongFlag explains an error of the option parser. It suggests an option for an
// unknown one.
func wrongFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef(cmd, "%v", err)
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usagef(cmd, "unknown option -%s", name)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return usagef(cmd, "unknown option --%s%s", name, didYouMean("--", closest(name, names)))
}

// needsCommand is run for a command that only has subcommands: it lists them, or
// refuses an unknown word.
func needsCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

func unknownCommand(cmd *cobra.Command, word string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(append(names, sub.Name()), sub.Aliases...)
		}
	}
	return usagef(cmd, "%s has no command %q%s", cmd.CommandPath(), word, didYouMean(cmd.CommandPath()+" ", closest(word, names)))
}

// didYouMean is a suggestion to append to an error; "" if nothing is similar.
func didYouMean(before string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	for i, name := range names {
		names[i] = before + name
	}
	return fmt.Sprintf("; did you mean %s?", strings.Join(names, " or "))
}

// closest returns the names that a mistyped word may stand for: those that start with
// it, else the most similar ones, with changes in at most a third of its letters.
func closest(word string, names []string) (near []string) {
	best := max(1, len(word)/3)
	for _, name := range slices.Sorted(slices.Values(names)) {
		if len(word) > 1 && strings.HasPrefix(name, word) {
			return []string{name}
		}
		switch n := changes(word, name); {
		case n < best:
			best, near = n, []string{name}
		case n == best:
			near = append(near, name)
		}
	}
	return near
}

// changes is the number of letters to insert, delete, replace or swap to turn a into
// b.
func changes(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
		for j := range rows[i] {
			switch {
			case i == 0:
				rows[i][j] = j
			case j > 0:
				n := rows[i-1][j-1]
				if a[i-1] != b[j-1] {
					n = 1 + min(n, rows[i-1][j], rows[i][j-1])
				}
				if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
					n = min(n, 1+rows[i-2][j-2])
				}
				rows[i][j] = n
			}
		}
	}
	return rows[len(a)][len(b)]
}
