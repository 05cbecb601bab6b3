//go:build linux

package attach

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"udm/ctl/server/exports"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

// readOnly is a file system that nothing can be saved in.
type readOnly struct{ hostfs.Disk }

func (readOnly) Create(string) (hostfs.File, error) { return nil, syscall.ENOSPC }

// A mount that fails leaves none: over a file, over the daemon's own directory, and
// one that cannot be saved.
func TestMountThatFails(t *testing.T) {
	root, file, dir := t.TempDir(), filepath.Join(t.TempDir(), "file"), t.TempDir()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	k, err := New(Config{Root: root, FS: readOnly{}, Env: env.Real(), Log: slog.New(slog.DiscardHandler),
		Exports: exports.Set{Control: dm.NewControl(env.Real(), nil)}})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]error{
		file: syscall.ENOTDIR, root: syscall.EINVAL, link: syscall.EINVAL, filepath.Dir(root): syscall.EINVAL, dir: syscall.ENOSPC,
		filepath.Join(dir, "nosuch"): syscall.ENOENT,
	} {
		if err := k.Mount(at); !errors.Is(err, want) {
			t.Errorf("mounting at %s: %v, want %v", at, err, want)
		}
	}
	if ms := k.Mounts(); len(ms) != 0 {
		t.Errorf("mounted: %v", ms)
	}
	list, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || strings.Contains(string(list), dir+" ") || strings.Contains(string(list), root+" ") {
		t.Errorf("still mounted, %v", err)
	}
	if err := k.Files("").Close(); err != nil {
		t.Error(err)
	}
}
