package need

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// ended is how a test that needs something has ended.
type ended struct {
	testing.TB
	how, why string
}

func (e *ended) Helper()           {}
func (e *ended) Fatal(args ...any) { e.end("failed", args) }
func (e *ended) Skip(args ...any)  { e.end("skipped", args) }

func (e *ended) end(how string, args []any) {
	e.how, e.why = how, args[0].(string)
	runtime.Goexit()
}

// try runs what needs something as a test of its own.
func try(t *testing.T, need func(testing.TB)) *ended {
	e := &ended{TB: t}
	var done sync.WaitGroup
	done.Go(func() { need(e) })
	done.Wait()
	return e
}

func TestMissing(t *testing.T) {
	for ci, want := range map[string]string{"": "skipped", "true": "failed"} {
		t.Setenv("CI", ci)
		for what, need := range map[string]func(testing.TB){
			"no-such-program": func(t testing.TB) { Tools(t, "go", "no-such-program") },
			"no-such-file":    func(t testing.TB) { Open(t, filepath.Join(t.TempDir(), "no-such-file")) },
		} {
			if e := try(t, need); e.how != want || !strings.Contains(e.why, what) {
				t.Errorf("CI=%s: %s, because %q; want %s", ci, e.how, e.why, want)
			}
		}
		if e := try(t, func(t testing.TB) { Tools(t, "go") }); e.how != "" {
			t.Errorf("CI=%s: %s, because %q", ci, e.how, e.why)
		}
	}
}

func TestPackageIsNamed(t *testing.T) {
	if got := from("xfs_repair"); got != " (Debian: apt-get install xfsprogs)" {
		t.Errorf("xfs_repair is%s", got)
	}
	if got := from("sh"); got != "" {
		t.Errorf("sh is%s", got)
	}
}

func TestHas(t *testing.T) {
	t.Setenv("CI", "")
	if Has(t, filepath.Join(t.TempDir(), "no-such-file")) {
		t.Error("there is a file that is not there")
	}
	if file := filepath.Join(t.TempDir(), "file"); os.WriteFile(file, nil, 0o600) != nil || Has(t, file) != (os.Geteuid() == 0) {
		t.Error("a file that is there is not found, or this user is taken for root")
	}
	t.Setenv("CI", "true")
	if e := try(t, func(t testing.TB) { Has(t, filepath.Join(t.TempDir(), "no-such-file")) }); e.how != "failed" {
		t.Errorf("in CI it %s", e.how)
	}
}
