package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"udm/ctl"
	"udm/volume"
)

// The daemon with thousands of clones, and with the volumes of a pool: processor time and
// memory of its process for each of them. Its directory is on the disk of TMPDIR, whose
// file system takes part in the processor time of every saved change.

const (
	manyClones  = 4096
	manyVolumes = 256
	oneByOne    = 64
)

// daemon is a running daemon with a client.
type daemon struct {
	cmd  *exec.Cmd
	c    *ctl.Client
	root string
}

func startDaemon(root string) (*daemon, error) {
	d := &daemon{cmd: exec.Command("bin/udm", "--root", root, "daemon"), c: ctl.NewClient(root), root: root}
	d.cmd.Stderr = os.Stderr
	return d, d.cmd.Start()
}

// ready waits until all devices are restored.
func (d *daemon) ready() error {
	return d.answers(func(v ctl.Version) bool { return v.Restoring == nil })
}

// answers waits for an answer with a property.
func (d *daemon) answers(has func(ctl.Version) bool) error {
	for range 30_000 {
		if v, err := d.c.Version(context.Background()); err == nil && has(v) {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return errors.New("the daemon does not answer")
}

// kill ends the daemon as a crash does.
func (d *daemon) kill() {
	d.c.Close()
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// resident returns the memory of the daemon in KB.
func (v *volumes) resident() (kb float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", v.d.cmd.Process.Pid))
	_, rest, found := strings.Cut(string(text), "VmRSS:")
	if v.err = errors.Join(v.err, err); !found {
		return 0
	}
	_, _ = fmt.Sscan(rest, &kb)
	return kb
}

func benchVolumes(r *report) error {
	dir, err := os.MkdirTemp("", "udm-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, []byte("image"), 0o600); err != nil {
		return err
	}
	if err := os.Truncate(image, 1<<30); err != nil {
		return err
	}
	v := &volumes{r: r, image: image, root: filepath.Join(dir, "udm")}
	if v.d, err = startDaemon(v.root); err != nil {
		return err
	}
	defer func() { v.d.kill() }()
	if err := v.d.ready(); err != nil {
		return err
	}
	if err := v.clones(); err != nil {
		return err
	}
	return v.pool()
}

// volumes is a run of the group.
type volumes struct {
	r           *report
	d           *daemon
	image, root string
	err         error
}

// measure adds the figure of a command about n objects, unless one has failed before.
func (v *volumes) measure(group, name string, n int, do func(context.Context) error) (ms float64) {
	if v.err != nil {
		return 0
	}
	pid := v.d.cmd.Process.Pid
	before := cpuOf(pid)
	if err := do(context.Background()); err != nil {
		v.err = fmt.Errorf("%s, %s: %w", group, name, err)
		return 0
	}
	ms = (cpuOf(pid) - before) * 1e3 / float64(n)
	v.r.one(group, name, "ms", ms)
	return ms
}

func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprint(prefix, i)
	}
	return names
}

func (v *volumes) clones() error {
	group := fmt.Sprintf("volumes: %d clones", manyClones)
	names := numbered("vm", manyClones)
	claim := func(what string, ms float64) {
		v.r.atMost(1, ms, "%s %d clones: processor time of the daemon for each, in ms", what, manyClones)
	}
	empty := v.resident()
	claim("creating", v.measure(group, "create, in a batch", manyClones, func(ctx context.Context) error {
		return v.d.c.Clone(ctx, volume.CloneSpec{Base: v.image, Names: names})
	}))
	memory := (v.resident() - empty) / manyClones
	v.r.one(group, "memory of each", "KB", memory)
	v.r.atMost(100, memory, "memory of each of %d clones, in KB", manyClones)
	claim("listing", v.measure(group, "list", manyClones, func(ctx context.Context) error {
		_, err := v.d.c.Objects(ctx)
		return err
	}))
	v.oneByOne(group, "")
	claim("resetting", v.measure(group, "reset, in a batch", manyClones, func(ctx context.Context) error {
		return v.d.c.Reset(ctx, ctl.Objects{Names: names})
	}))
	v.r.atMost(3, v.restart(group), "processor time of a restart with %d clones, in s", manyClones)
	claim("removing", v.measure(group, "remove, in a batch", manyClones, func(ctx context.Context) error {
		return v.d.c.RemoveObject(ctx, volume.RemoveSpec{Names: names})
	}))
	return v.err
}

// oneByOne measures commands about a single clone, in a pool if there is one.
func (v *volumes) oneByOne(group, pool string) {
	few := numbered("one", oneByOne)
	each := func(what string, do func(ctx context.Context, name string) error) {
		v.measure(group, what+", one by one", oneByOne, func(ctx context.Context) error {
			for _, name := range few {
				if err := do(ctx, name); err != nil {
					return err
				}
			}
			return nil
		})
	}
	each("create", func(ctx context.Context, name string) error {
		return v.d.c.Clone(ctx, volume.CloneSpec{Base: v.image, Names: []string{name}, Pool: pool})
	})
	each("reset", func(ctx context.Context, name string) error { return v.d.c.Reset(ctx, ctl.Objects{Name: name}) })
	each("remove", func(ctx context.Context, name string) error {
		return v.d.c.RemoveObject(ctx, volume.RemoveSpec{Name: name})
	})
}

// pool is the same for clones in a pool.
func (v *volumes) pool() error {
	group := fmt.Sprintf("volumes: %d in a pool", manyVolumes)
	names := numbered("v", manyVolumes)
	v.err = v.d.c.CreatePool(context.Background(), volume.PoolSpec{Name: "pool", Size: 1 << 30})
	v.measure(group, "create, in a batch", manyVolumes, func(ctx context.Context) error {
		return v.d.c.Clone(ctx, volume.CloneSpec{Base: v.image, Names: names, Pool: "pool"})
	})
	v.oneByOne(group, "pool")
	v.measure(group, "reset, in a batch", manyVolumes, func(ctx context.Context) error {
		return v.d.c.Reset(ctx, ctl.Objects{Names: names})
	})
	v.restart(group)
	v.measure(group, "remove, in a batch", manyVolumes, func(ctx context.Context) error {
		return v.d.c.RemoveObject(ctx, volume.RemoveSpec{Names: names})
	})
	return v.err
}

// restart kills the daemon and starts another one. It returns the processor time until all
// is restored, in seconds.
func (v *volumes) restart(group string) (s float64) {
	if v.err != nil {
		return 0
	}
	v.d.kill()
	start := time.Now()
	if v.d, v.err = startDaemon(v.root); v.err == nil {
		v.err = v.d.answers(func(ctl.Version) bool { return true })
	}
	answer := time.Since(start)
	if v.err == nil {
		v.err = v.d.ready()
	}
	if v.err != nil {
		return 0
	}
	v.r.one(group, "restart, first answer", "ms", float64(answer)/1e6)
	s = cpuOf(v.d.cmd.Process.Pid)
	v.r.one(group, "restart, all", "s", s)
	return s
}
