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

// usageExit is the exit code of a command line that cannot be carried out as it is
// written. Nothing has been tried then.
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
	fmt.Fprintf(w, "%s --help tells more\n", e.cmd.CommandPath())
}

// explainUsage makes a command and those below it refuse wrong operands and options in
// words.
func explainUsage(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(wrongFlag)
	cmd.DisableSuggestions = true // they are made here
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
// --size SIZE.
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
			i++ // its value
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

// wrongOperands says which operands are missing or too many; err is the check's own
// word if it is neither.
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
		return usagef(cmd, "%q is one word too many%s", args[len(ops)], meantOption(cmd, args, len(ops)))
	}
	return usagef(cmd, "%v", err)
}

// meantOption proposes the option for a size that was given as an operand.
func meantOption(cmd *cobra.Command, args []string, n int) string {
	size := cmd.Flags().Lookup("size")
	if _, err := leaf.ParseSize(args[n]); err != nil || size == nil || size.Changed || len(args) > n+1 {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", strings.Join(append([]string{cmd.CommandPath()}, slices.Concat(args[:n], []string{"--size", args[n]})...), " "))
}

// wrongFlag explains an error of the parser of options. It proposes an option for one
// that is unknown.
func wrongFlag(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usagef(cmd, "%v", err)
	}
	name := unknown.GetSpecifiedName()
	if unknown.GetSpecifiedShortnames() != "" {
		return usagef(cmd, "there is no option -%s", name)
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	return usagef(cmd, "there is no option --%s%s", name, didYouMean("--", closest(name, names)))
}

// needsCommand is what a command that only has subcommands does: it shows them, and
// refuses a word that is none.
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

// didYouMean is the question that follows a mistake; "" if nothing comes near.
func didYouMean(before string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	for i, name := range names {
		names[i] = before + name
	}
	return fmt.Sprintf("; did you mean %s?", strings.Join(names, " or "))
}

// closest are the names that a mistyped word may have been: those of which it is the
// beginning, else those that fewest changes make of it, of at most a third of its
// letters.
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

// changes is how many letters have to be inserted, deleted, replaced or exchanged with
// their neighbours to make b of a.
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
