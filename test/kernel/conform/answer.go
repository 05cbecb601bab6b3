//go:build unix

package conform

import (
	"fmt"
	"slices"
	"strings"
)

// Answer is what one command gave back.
type Answer struct {
	Line   Line
	Output []string
	Log    []string // never compared
}

// Golden is the text of a golden file:
//
//	# kernel VERSION, script HASH
//	> COMMAND
//	>	a line of its standard input
//	  output line
//	~ log line
func Golden(kernel string, s Script, answers []Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# kernel %s, script %s\n", kernel, s.Hash)
	for _, a := range answers {
		fmt.Fprintf(&b, "> %s\n", a.Line.Text)
		for _, l := range lines(a.Line.Stdin) {
			fmt.Fprintf(&b, ">\t%s\n", l)
		}
		for _, l := range a.Output {
			fmt.Fprintf(&b, "  %s\n", l)
		}
		for _, l := range a.Log {
			fmt.Fprintf(&b, "~ %s\n", l)
		}
	}
	return b.String()
}

// ParseGolden reads a golden file back as the answers to the script's lines; it refuses answers to another script.
func ParseGolden(s Script, text string) ([]Answer, error) {
	var answers []Answer
	for _, l := range lines(text) {
		switch {
		case strings.HasPrefix(l, "# "):
			if !strings.HasSuffix(l, ", script "+s.Hash) {
				return nil, fmt.Errorf("%s: the golden answers are those of another script text: %s, want %s", s.Name, l, s.Hash)
			}
		case strings.HasPrefix(l, "> ") && len(answers) < len(s.Lines):
			answers = append(answers, Answer{Line: s.Lines[len(answers)]})
		case strings.HasPrefix(l, "  ") && len(answers) > 0:
			a := &answers[len(answers)-1]
			a.Output = append(a.Output, l[2:])
		case strings.HasPrefix(l, "~ "), strings.HasPrefix(l, ">\t"):
		default:
			return nil, fmt.Errorf("%s: golden answers hold %q", s.Name, l)
		}
	}
	if len(answers) != len(s.Lines) {
		return nil, fmt.Errorf("%s: golden answers to %d commands, the script has %d", s.Name, len(answers), len(s.Lines))
	}
	return answers, nil
}

// CompareOptions says how answers are compared.
type CompareOptions struct {
	// WantName and GotName head the two sides of a difference.
	WantName, GotName string
	// Forgive lets lines marked "differs ID" differ; then an equal answer there is a difference itself.
	Forgive bool
}

// Compare returns one readable text per command whose answers differ.
func Compare(s Script, want, got []Answer, o CompareOptions) []string {
	var diffs []string
	for i, w := range want {
		if i >= len(got) {
			diffs = append(diffs, fmt.Sprintf("%s.txt:%d: %s\n    no answer", s.Name, w.Line.No, w.Line.Text))
			break
		}
		equal := slices.Equal(w.Output, got[i].Output)
		where := fmt.Sprintf("%s.txt:%d: %s\n", s.Name, w.Line.No, w.Line.Text)
		switch forgiven := o.Forgive && w.Line.Differs != ""; {
		case forgiven && equal:
			diffs = append(diffs, where+"    is marked \"differs "+w.Line.Differs+"\" but does not")
		case !forgiven && !equal:
			diffs = append(diffs, where+side("- "+o.WantName, w.Output, got[i].Output)+side("+ "+o.GotName, got[i].Output, w.Output))
		}
	}
	return diffs
}

// side lists the lines of one answer, marking those that the other does not have at the same place.
func side(name string, out, other []string) string {
	var b strings.Builder
	if len(out) == 0 {
		fmt.Fprintf(&b, "    %s: (nothing)\n", name)
	}
	for i, l := range out {
		mark := "  "
		if i >= len(other) || other[i] != l {
			mark = "! "
		}
		fmt.Fprintf(&b, "    %s: %s%s\n", name, mark, l)
	}
	return b.String()
}

// CountLines is the number of output lines in the answers.
func CountLines(answers []Answer) int {
	n := 0
	for _, a := range answers {
		n += len(a.Output)
	}
	return n
}
