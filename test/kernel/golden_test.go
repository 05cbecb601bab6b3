//go:build unix

package kernel

import (
	"os"
	"strings"
	"testing"

	"udm/test/kernel/conform"
	"udm/test/program"
)

// udmProgram is the program under test.
func udmProgram(t *testing.T) string {
	t.Helper()
	if *udm != "" {
		return *udm
	}
	return program.Build(t, "udm/cmd/udm")
}

// newUDM starts a daemon until the test ends.
func newUDM(t *testing.T) *udmHost {
	t.Helper()
	h, err := startUDM(udmProgram(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// compare runs a script on udm and fails for every difference from the kernel's answers that is not open.
func (h *udmHost) compare(t *testing.T, s conform.Script, want []conform.Answer, open openList) {
	t.Helper()
	got, err := conform.Run(h, s)
	if err != nil {
		t.Error(err)
	}
	for _, d := range conform.Compare(s, want, got, conform.CompareOptions{WantName: "kernel", GotName: "udm", Forgive: true}) {
		where, _, _ := strings.Cut(d, ": ")
		if _, known := open[where]; known {
			delete(open, where)
			continue
		}
		t.Error(d)
	}
	for where, why := range open {
		if strings.HasPrefix(where, s.Name+".txt:") {
			t.Errorf("%s does not differ any more: strike it from %s (%s)", where, openFile, why)
		}
	}
}

const openFile = "testdata/open.txt"

// openList holds the reasons of open differences by "script.txt:line".
type openList map[string]string

func readOpen(t *testing.T) openList {
	t.Helper()
	text, err := os.ReadFile(openFile)
	if err != nil {
		t.Fatal(err)
	}
	open := openList{}
	for line := range strings.Lines(string(text)) {
		if where, why, ok := strings.Cut(strings.TrimSpace(line), " "); ok && where != "#" {
			open[where] = why
		}
	}
	return open
}

// minLines is how many answer lines the scripts of the targets linear, striped, zero and error alone must have.
const minLines = 400

// TestGolden compares udm with the kernel's golden answers; no kernel is needed.
func TestGolden(t *testing.T) {
	h := newUDM(t)
	open := readOpen(t)
	t.Logf("%d differences are open", len(open))
	total := 0
	for _, s := range scripts(t) {
		want, err := readGolden(goldenDir, s)
		if err != nil {
			t.Fatal(err)
		}
		total += conform.CountLines(want)
		t.Run(s.Name, func(t *testing.T) { h.compare(t, s, want, open) })
	}
	if *only == "" && total < minLines {
		t.Errorf("%d answer lines compared, want at least %d", total, minLines)
	}
	t.Logf("%d answer lines compared", total)
}

// TestDifferencesAreExplained wants a reason in docs/differences.md for every "differs ID" of a script.
func TestDifferencesAreExplained(t *testing.T) {
	const file = "../../docs/differences.md"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := conform.ReadDir(scriptDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		for _, l := range s.Lines {
			if l.Differs != "" && !strings.Contains(string(text), "`"+l.Differs+"`") {
				t.Errorf("%s.txt:%d differs by %q, which %s does not explain", s.Name, l.No, l.Differs, file)
			}
		}
	}
}
