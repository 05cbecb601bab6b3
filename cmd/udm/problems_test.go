package main

import (
	"strings"
	"testing"

	"udm/ctl"
)

// Problems are printed in the words that the daemon has for them, each with its command; a name
// does not control the terminal.
func TestProblemsText(t *testing.T) {
	var b strings.Builder
	printProblems(&b, []ctl.Problem{
		{Alert: "UdmPoolOutOfSpace", Severity: "critical", Summary: "Pool fast is out of data space.",
			Description: "Writes that need space wait or fail.", Command: "udm pool grow fast --size SIZE"},
		{Alert: "UdmTableMissing", Severity: "warning", Summary: "The saved table of a\x1b[2Jb cannot be loaded.",
			Description: "The status shows what is missing.", Detail: "/a\nb: no such file", Command: "udm status 'a\x1b[2Jb'"},
	})
	want := `critical  Pool fast is out of data space.
          Writes that need space wait or fail.
          udm pool grow fast --size SIZE
warning   The saved table of a\x1b[2Jb cannot be loaded.
          The status shows what is missing.
          /a\nb: no such file
          udm status 'a\x1b[2Jb'
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}
