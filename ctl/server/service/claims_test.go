package service

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"udm/blk/leaf"
	"udm/ctl"
	"udm/dm"
	"udm/env"
	"udm/targets/all"
)

// TestNameOfADeviceThatWentByItself gives a name to a second device while the
// file of the first one, which went with its last close, still has it. At no
// moment may two files have the name: after a power cut one of them would be
// refused.
func TestNameOfADeviceThatWentByItself(t *testing.T) {
	ctx, root := context.Background(), t.TempDir()
	control := dm.NewControl(env.Real(), leaf.New(env.Real()), all.Types()...)
	s, err := New(Config{Root: root, Types: all.Types(), Control: control})
	must(t, err)
	must(t, s.Restore(ctx))
	_, err = s.Create(ctx, ctl.Create{Name: "x", Table: "0 8 zero"})
	must(t, err)
	x, err := control.Name("x")
	must(t, err)
	open, err := x.Open(true)
	must(t, err)
	must(t, s.Remove(ctx, ctl.Remove{Ref: ctl.Ref{Name: "x"}, Deferred: true}))
	must(t, open.Close())
	minor := uint32(7)
	for err = syscall.EBUSY; errors.Is(err, syscall.EBUSY); runtime.Gosched() {
		_, err = s.Create(ctx, ctl.Create{Name: "x", Minor: &minor, Table: "0 8 zero"})
	}
	must(t, err)
	if files := filesWith(t, root, `"name": "x"`); len(files) != 1 || files[0] != "7.json" {
		t.Errorf("the name is in the files %v, want 7.json alone", files)
	}
	ended(t, s)
}

// filesWith are the files of saved devices that hold a text.
func filesWith(t *testing.T, root, text string) (names []string) {
	paths, err := filepath.Glob(filepath.Join(root, "devices", "*.json"))
	must(t, err)
	for _, p := range paths {
		b, err := os.ReadFile(p)
		must(t, err)
		if strings.Contains(string(b), text) {
			names = append(names, filepath.Base(p))
		}
	}
	return names
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
