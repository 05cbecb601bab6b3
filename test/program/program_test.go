package program

import (
	"os/exec"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

// TestBuild builds a command once.
func TestBuild(t *testing.T) {
	const pkg = "udm/cmd/udm"
	path := Build(t, pkg)
	if again := Build(t, pkg); again != path {
		t.Errorf("built as %s and as %s", path, again)
	}
	if out, err := exec.Command(path, "--help").CombinedOutput(); err != nil || !strings.Contains(string(out), "udm") {
		t.Errorf("it says %q, %v", out, err)
	}
	if _, err := build("udm/no/such/package", ""); err == nil {
		t.Error("what is not there is built")
	}
}
