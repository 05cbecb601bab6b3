package script

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"udm/test/need"
)

// make install puts things where the system looks for them, and make uninstall takes
// them away.
func TestInstall(t *testing.T) {
	need.Tools(t, "make", "systemd-analyze")
	prefix := filepath.Join(t.TempDir(), "usr")
	run := func(name string, args ...string) {
		t.Helper()
		c := exec.Command(name, args...)
		c.Dir = "../.."
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	run("make", "install", "PREFIX="+prefix, "UDM="+udm())
	if _, err := os.Lstat(filepath.Join(prefix, "bin/thin_check")); err == nil {
		t.Error("a link stands in for the system's thin_check unasked")
	}
	run("make", "install", "PREFIX="+prefix, "UDM="+udm(), "THIN_LINKS=yes")
	run(filepath.Join(prefix, "bin/thin_check"), "--version")
	for _, path := range []string{"share/man/man1/udm.1", "share/man/man1/udm-pool-create.1", "share/bash-completion/completions/udm",
		"share/zsh/site-functions/_udm", "share/fish/vendor_completions.d/udm.fish"} {
		if info, err := os.Stat(filepath.Join(prefix, path)); err != nil || info.Size() == 0 || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	run(filepath.Join(prefix, "bin/udm"), "version")
	units, err := filepath.Glob(filepath.Join(prefix, "lib/systemd/system/*"))
	if err != nil || len(units) != 3 {
		t.Fatalf("%v, %v", units, err)
	}
	run("systemd-analyze", append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...)
	run("make", "uninstall", "PREFIX="+prefix)
	err = filepath.WalkDir(prefix, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
