//go:build containerd

package test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"

	"udm/containers/internal/rig"
)

var unpacks = flag.Int("unpacks", 12, "images that are unpacked side by side")

// The version of containerd, and what is left out of it: what a snapshotter does not need.
const version = "@v2.3.4"

var without = []string{"no_cri", "no_btrfs", "no_zfs", "no_tracing"}

// world is a daemon, a snapshotter, which has no capability, and a containerd.
type world struct {
	*testing.T
	dir                     string
	daemon                  *rig.Daemon
	snapshotter, containerd *rig.Process
	ctr                     string
}

const config = `version = 3
root = "%[1]s/root"
state = "%[1]s/state"
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/t.sock"
[proxy_plugins.udm]
  type = "snapshot"
  address = "%[1]s/s.sock"
`

func newWorld(t *testing.T) *world {
	t.Helper()
	rig.Needs(t, "mkfs.ext4", "debugfs", "setpriv")
	w := &world{T: t, dir: rig.Dir(t), daemon: rig.StartDaemon(t)}
	const module = "github.com/containerd/containerd/v2/cmd/"
	containerd := rig.Tool(t, module+"containerd"+version, without...)
	w.ctr = rig.Tool(t, module+"ctr"+version, without...)
	conf := filepath.Join(w.dir, "config.toml")
	w.ok(os.WriteFile(conf, []byte(fmt.Sprintf(config, w.dir)), 0o600))
	w.snapshotter = rig.Start(t, "msg=ready", "setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs", rig.Build(t, ".", "udm/containers/cmd/udm-snapshotter"), "--root", w.daemon.Root,
		"--socket", filepath.Join(w.dir, "s.sock"), "--files", filepath.Join(w.dir, "files"), "--pool", "p", "--pool-size", "2G", "--pool-max", "64G", "--size", "1G")
	w.containerd = rig.Start(t, "successfully booted", containerd, "--config", conf)
	return w
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// try runs ctr.
func (w *world) try(args ...string) (string, error) {
	cmd := exec.Command(w.ctr, append([]string{"--address", filepath.Join(w.dir, "c.sock"), "--namespace", "test"}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, &errs)
	}
	return out.String(), err
}

func (w *world) run(args ...string) string {
	w.Helper()
	out, err := w.try(args...)
	w.ok(err)
	return out
}

func (w *world) imports(file string) error {
	_, err := w.try("images", "import", "--local", "--snapshotter", "udm", "--platform", "linux", file)
	return err
}

// mounted runs f where an image is mounted.
func (w *world) mounted(name string, f func(dir string)) {
	w.Helper()
	dir, err := os.MkdirTemp(w.dir, "m")
	w.ok(err)
	w.run("images", "mount", "--rw", "--snapshotter", "udm", "--platform", "linux", name, dir)
	f(dir)
	w.run("images", "unmount", "--snapshotter", "udm", "--rm", dir)
}

// empty removes all images and what containerd keeps for others, and waits until nothing
// is left of them: no volume, no loop device, no mount.
func (w *world) empty() {
	w.Helper()
	for _, kind := range []string{"images", "leases"} {
		if names := strings.Fields(w.run(kind, "ls", "-q")); len(names) > 0 {
			w.run(append([]string{kind, "rm", "--sync"}, names...)...)
		}
	}
	w.run("content", "prune", "references") // collects garbage
	left := func() []string {
		return slices.Concat(w.daemon.Objects(w, "p-snap-"), rig.Loops(w, w.dir+"/files"), rig.Mounted(w, w.dir+"/state"))
	}
	rig.Until(w, "nothing is left", func() bool {
		return len(left()) == 0
	})
	orphans, err := w.daemon.Client.Orphans(context.Background())
	if w.ok(err); len(orphans) > 0 {
		w.Errorf("orphans %v", orphans)
	}
}

func (w *world) snapshots(args ...string) string {
	w.Helper()
	return w.run(append([]string{"snapshots", "--snapshotter", "udm"}, args...)...)
}

// top is the committed snapshot that no other one stands on.
func (w *world) top() string {
	w.Helper()
	committed, parents := []string{}, map[string]bool{}
	for line := range strings.Lines(w.snapshots("ls")) {
		switch f := strings.Fields(line); {
		case len(f) == 3 && f[2] == "Committed":
			committed, parents[f[1]] = append(committed, f[0]), true
		case len(f) == 2 && f[1] == "Committed":
			committed = append(committed, f[0])
		}
	}
	tops := slices.DeleteFunc(committed, func(key string) bool { return parents[key] })
	if len(tops) != 1 {
		w.Fatalf("the tops are %v", tops)
	}
	return tops[0]
}

// at runs f where a snapshot is mounted by the command that ctr tells.
func (w *world) at(key string, f func(dir string)) {
	w.Helper()
	dir, err := os.MkdirTemp(w.dir, "m")
	w.ok(err)
	out, err := exec.Command("sh", "-c", w.snapshots("mounts", dir, key)).CombinedOutput()
	if err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	f(dir)
	w.ok(mount.UnmountAll(dir, 0))
}

// An image is imported, unpacked, mounted, changed and committed, and another container
// gets the change.
func TestImport(t *testing.T) {
	w := newWorld(t)
	const name = "test/first:1"
	w.ok(w.imports(image(t, w.dir, name, 4)))
	w.mounted(name, func(dir string) { check(t, dir, name, 4) })

	w.snapshots("prepare", "active", w.top())
	w.at("active", func(dir string) { w.ok(os.WriteFile(filepath.Join(dir, "more"), []byte("more"), 0o600)) })
	w.snapshots("commit", "committed", "active")
	w.snapshots("prepare", "child", "committed")
	w.at("child", func(dir string) {
		check(t, dir, name, 4)
		if text, err := os.ReadFile(filepath.Join(dir, "more")); err != nil || string(text) != "more" {
			t.Errorf("more is %q, %v", text, err)
		}
	})
	for _, key := range []string{"child", "committed"} {
		w.snapshots("rm", key)
	}
	w.empty()
}

// Images are unpacked side by side.
func TestUnpacks(t *testing.T) {
	w := newWorld(t)
	w.unpack(func() {})
	w.empty()
}

// Images are unpacked side by side while one program after the other is killed; who asked for
// an import that fails asks again. In the end all are there, and nothing else.
func TestUnpacksKilled(t *testing.T) {
	w := newWorld(t)
	w.unpack(func() {
		for i, p := range []*rig.Process{w.snapshotter, w.daemon.Process, w.containerd} {
			some := (i + 1) * *unpacks
			rig.Until(t, "layers", func() bool { return len(w.daemon.Objects(t, "p-snap-")) >= some })
			p.Kill()
			p.Start()
			w.daemon.Client.Close()
		}
	})
	w.empty()
}

// unpack imports all images side by side while meanwhile runs.
func (w *world) unpack(meanwhile func()) {
	w.Helper()
	var all sync.WaitGroup
	var failed atomic.Int64
	names := make([]string, *unpacks)
	errs := make([]error, *unpacks)
	for i := range names {
		names[i] = fmt.Sprintf("test/image-%d:1", i)
		file := image(w.T, w.dir, names[i], 4)
		all.Go(func() {
			for range tries {
				if errs[i] = w.imports(file); errs[i] == nil {
					return
				}
				failed.Add(1)
				rig.Until(w, "all programs answer", func() bool { return w.answers() })
			}
		})
	}
	meanwhile()
	all.Wait()
	w.Logf("%d imports failed and were asked for again", failed.Load())
	for i, name := range names {
		if w.ok(errs[i]); i%10 == 0 {
			w.mounted(name, func(dir string) { check(w.T, dir, name, 4) })
		}
	}
}

// tries is how often an import is asked for: three programs are killed, and the dead mount of
// one that was not unpacked may be met once more.
const tries = 6

// answers reports whether containerd reaches the snapshotter, and that the daemon.
func (w *world) answers() bool {
	_, err := w.try("snapshots", "--snapshotter", "udm", "ls")
	return err == nil
}

// Whoever is killed in the middle of an unpack, the same import then succeeds, and nothing
// of either is left.
func TestKilled(t *testing.T) {
	w := newWorld(t)
	for victim, p := range map[string]*rig.Process{"snapshotter": w.snapshotter, "daemon": w.daemon.Process, "containerd": w.containerd} {
		for layer := 1; layer <= 5; layer += 2 {
			name := fmt.Sprintf("test/%s-%d:1", victim, layer)
			file := image(t, w.dir, name, 6)
			done := make(chan error)
			go func() { done <- w.imports(file) }()
			var first error
			ended := false
			rig.Until(t, "layers", func() bool {
				select {
				case first = <-done:
					ended = true
				default:
				}
				return ended || len(w.daemon.Objects(t, "p-snap-")) >= layer
			})
			p.Kill()
			if !ended {
				first = <-done
			}
			p.Start()
			t.Logf("%s killed at layer %d: %v", victim, layer, first)
			w.daemon.Client.Close()
			rig.Until(t, "containerd has connected to the snapshotter again", w.answers)
			w.ok(w.imports(file))
			w.mounted(name, func(dir string) { check(t, dir, name, 6) })
			w.empty()
		}
	}
}
