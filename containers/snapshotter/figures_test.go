//go:build linux

package snapshotter

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
)

var layers = flag.Int("layers", 3, "layers of TestLayers, which tells how long each part takes")

// TestLayers stacks layers as an unpack does and tells where the time goes.
func TestLayers(t *testing.T) {
	b, ctx := newBed(t), context.Background()
	s := New(b.config(), b.Client)
	defer s.Close()
	dir := filepath.Join(filepath.Dir(b.Root), "mnt")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	took := map[string]time.Duration{}
	timed := func(what string, f func() error) {
		t.Helper()
		begun := time.Now()
		if err := f(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		took[what] += time.Since(begun)
	}
	parent := ""
	for i := range *layers {
		var ms []mount.Mount
		key, name := fmt.Sprint("active-", i), fmt.Sprint("layer-", i)
		timed("prepare", func() (err error) { ms, err = s.Prepare(ctx, key, parent); return err })
		timed("mount", func() error { return mount.All(ms, dir) })
		timed("write", func() error { return os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600) })
		timed("unmount", func() error { return mount.UnmountAll(dir, 0) })
		timed("commit", func() error { return s.Commit(ctx, name, key) })
		parent = name
	}
	for what, d := range took {
		t.Logf("%-8s %v", what, (d / time.Duration(*layers)).Round(time.Microsecond))
	}
}
