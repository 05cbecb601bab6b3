//go:build linux

package attach

import (
	"context"
	"log/slog"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"udm/ctl/server/exports"
	"udm/ctl/server/frontend"
	"udm/ctl/server/handover"
	"udm/dm"
	"udm/env"
	"udm/env/hostfs"
)

func newKernel(t *testing.T, root string) *Kernel {
	t.Helper()
	k, err := New(Config{Root: root, FS: hostfs.Disk{}, Env: env.Real(), Log: slog.New(slog.DiscardHandler),
		Exports: exports.Set{Control: dm.NewControl(env.Real(), nil)}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func closeAtEnd(t *testing.T, k *Kernel) {
	t.Cleanup(func() {
		for _, f := range []frontend.Server{k.Files(""), k.Devices()} {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// detach unmounts what nobody serves.
func detach(dirs ...string) {
	for _, dir := range dirs {
		_ = unix.Unmount(dir, unix.MNT_DETACH) // it is unmounted already, unless the test has failed
	}
}

// Front ends that are handed over side by side serve all mounts afterwards, whichever of them
// is taken first.
func TestTakenInAnyOrder(t *testing.T) {
	for name, last := range map[string]int{"files last": 0, "devices last": 1} {
		t.Run(name, func(t *testing.T) {
			root, dir, b := t.TempDir(), t.TempDir(), new(handover.Bundle)
			list := func(k *Kernel) []frontend.Mover {
				return []frontend.Mover{k.Files("").(frontend.Mover), k.Devices().(frontend.Mover)}
			}
			old := newKernel(t, root)
			if err := old.Mount(dir); err != nil {
				t.Fatal(err)
			}
			if err := old.mountNumbered(&old.own, attachments, old.ownDir()); err != nil {
				t.Fatal(err)
			}
			for _, f := range list(old) {
				if err := f.Hand(context.Background(), b, nil); err != nil {
					t.Fatal(err)
				}
			}
			k := newKernel(t, root)
			t.Cleanup(func() { detach(dir, k.ownDir()) })
			now := list(k)
			for _, f := range []frontend.Mover{now[1-last], now[last]} {
				if err := f.Take(b); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(k.starts); n != 2 {
				t.Fatalf("%d of 2 mounts are to be served", n)
			}
			closeAtEnd(t, k)
			for _, f := range now {
				if err := f.Start(func(err error) { t.Error(err) }); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := exec.Command("ls", dir, k.ownDir()).CombinedOutput(); err != nil {
				t.Errorf("ls: %v\n%s", err, out)
			}
		})
	}
}
