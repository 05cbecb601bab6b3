//go:build linux

package snapshotter

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"udm/containers/internal/rig"
)

func ofImage(path string) snapshots.Opt {
	return snapshots.WithLabels(map[string]string{imageLabel: path})
}

// makeImage makes an image with a file f, by a program that takes a directory and an image.
func (b *bed) makeImage(program string, args ...string) string {
	b.t.Helper()
	dir := filepath.Dir(b.Root)
	content, image := filepath.Join(dir, "content"), filepath.Join(dir, program+".img")
	err := errors.Join(os.MkdirAll(content, 0o755), os.WriteFile(filepath.Join(content, "f"), []byte("f"), 0o600))
	if program == "mkfs.erofs" {
		args = append(args, image, content)
	} else {
		err = errors.Join(err, os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20))
		args = append(args, content, image)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v: %s", program, err, out)
	}
	return image
}

// A snapshot begins as an image, which stays what it was, and takes space for what is
// written only.
func TestImage(t *testing.T) {
	b := newBed(t)
	s := b.open(b.config())
	before, err := os.ReadFile(b.image)
	s.ok(err)
	_, err = s.Prepare(ctx, "c", "", ofImage(b.image))
	s.ok(err)
	s.mounted("c", func(dir string) {
		text, err := os.ReadFile(filepath.Join(dir, "f"))
		if s.ok(err); string(text) != "f" {
			t.Errorf("f has %q", text)
		}
		s.ok(os.RemoveAll(filepath.Join(dir, "lost+found")))
		writeSynced(t, filepath.Join(dir, "g"), "g")
	})
	if u, err := s.Usage(ctx, "c"); err != nil || u.Size == 0 || u.Size > 8<<20 {
		t.Errorf("%v, %v", u, err)
	}
	s.ok(s.Commit(ctx, "l", "c"))
	s.layer("m", "l", ofImage("/none")) // what has a parent begins as that
	s.has("m", "f", "g", "m")
	s.has("l", "f", "g")
	if now, err := os.ReadFile(b.image); err != nil || !bytes.Equal(now, before) {
		t.Errorf("the image has changed, %v", err)
	}
	for _, wrong := range []string{"relative", "/none", "/dev/null"} {
		if _, err := s.Prepare(ctx, "w", "", ofImage(wrong)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// Images of erofs are mounted read-only, also where a snapshot could be written to.
func TestErofs(t *testing.T) {
	rig.Needs(t, "mkfs.erofs")
	b := newBed(t)
	s := b.open(b.config())
	image := b.makeImage("mkfs.erofs")
	_, err := s.Prepare(ctx, "c", "", ofImage(image))
	s.ok(err)
	s.mounted("c", func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, "g"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("writing: %v", err)
		}
	})
	s.ok(s.Commit(ctx, "l", "c"))
	s.has("l", "f")
}

// What is mounted works on while the daemon is replaced, and while it is restarted beside a
// keeper; a snapshot can then be removed as before.
func TestDaemonRestarts(t *testing.T) {
	b := newBed(t)
	b.Keep()
	s := b.open(b.config())
	s.layer("a", "")
	_, err := s.Prepare(ctx, "c", "a")
	s.ok(err)
	s.mounted("c", func(dir string) {
		for name, end := range map[string]func(){"replaced": b.Replace, "restarted": b.Restart, "again": b.Restart} {
			written := make(chan error)
			go func() { written <- fill(filepath.Join(dir, name), 16<<20) }()
			end()
			s.ok(<-written)
		}
		if err := s.Remove(ctx, "c"); err != nil { // it is in use, and goes when it is not
			t.Error(err)
		}
		writeMuch(t, filepath.Join(dir, "more"), 1<<20)
	})
	s.nothingLeftBut(1)
	s.has("a", "a")
	_, err = s.Prepare(ctx, "d", "a")
	s.ok(err)
	ms, err := s.Mounts(ctx, "d")
	s.ok(err)
	s.ok(mount.All(ms, s.dir))
	b.Kill()
	if err := fill(filepath.Join(s.dir, "f"), 1<<20); err == nil {
		t.Error("a file system of a killed daemon can be written to")
	}
	b.Start()
	s.ok(mount.UnmountAll(s.dir, 0))
	s.mounted("d", func(dir string) { writeMuch(t, filepath.Join(dir, "f"), 1<<20) })
}
