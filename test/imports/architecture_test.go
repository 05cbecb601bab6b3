package imports

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// quoted is what documents have in backquotes: a path with a folder, or a file and
// a function in it.
var quoted = regexp.MustCompile("`([a-z][\\w-]*/[\\w./-]*)(?:: ([\\w.]+))?`")

// What ARCHITECTURE.md and CONTRIBUTING.md name is there.
func TestDocumentsNameWhatThereIs(t *testing.T) {
	for _, doc := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(filepath.Join("../..", doc))
		if err != nil {
			t.Fatal(err)
		}
		found := quoted.FindAllStringSubmatch(string(text), -1)
		for _, m := range found {
			if err := named(m[1], m[2]); err != "" {
				t.Errorf("%s: %s: %s", doc, m[0], err)
			}
		}
		if len(found) < 20 {
			t.Errorf("%s names %d things only", doc, len(found))
		}
	}
	if named("dm/device.go", "Device.Nothing") == "" || named("dm/nothing.go", "") == "" {
		t.Error("what is not there is found")
	}
}

// named is why a function or path is not there; "" when it is.
func named(path, function string) string {
	path = filepath.Join("../..", path)
	if function == "" {
		if _, err := os.Stat(path); err != nil {
			return err.Error()
		}
		return ""
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	head := `func ` + function
	if receiver, method, ok := strings.Cut(function, "."); ok {
		head = `func \(\w+ \*?` + receiver + `\) ` + method
	}
	if !regexp.MustCompile(`(?m)^` + head + `\(`).Match(text) {
		return "no such function"
	}
	return ""
}
