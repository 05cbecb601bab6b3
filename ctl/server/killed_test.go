//go:build unix

package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"udm/blk"
	"udm/ctl"
	"udm/ctl/server/service"
	"udm/env"
	"udm/env/hostfs"
	"udm/targets/all"
	"udm/volume"
	"udm/volume/rbddiff"
)

// killAt and killRoot are the environment of a daemon that kills itself.
const killAt, killRoot = "UDM_TEST_KILL_AT", "UDM_TEST_ROOT"

// TestMain is also such a daemon: see TestKilledInOperations.
func TestMain(m *testing.M) {
	if root := os.Getenv(killRoot); root != "" {
		runKilled(root)
	}
	os.Exit(m.Run())
}

// runKilled runs a daemon that kills itself at a change of its files, counted from
// the first one of an operation on volumes.
func runKilled(root string) {
	at, err := strconv.Atoi(os.Getenv(killAt))
	if err == nil {
		k := &killer{at: at}
		err = Run(context.Background(), Config{Root: root, Program: "test", Types: all.Types(), Log: discard,
			FS: killFS{k: k}, Files: killFiles{k: k}, Ready: func(*service.Service) { fmt.Println("ready") }})
	}
	fmt.Println(err)
	os.Exit(1)
}

// killer counts changes.
type killer struct {
	at int

	mu      sync.Mutex
	counted int  // guarded by mu
	armed   bool // guarded by mu; an operation has begun
}

// change makes a change, and kills the process before or after it when its turn has
// come.
func (k *killer) change(path string, do func() error) error {
	k.moment(path)
	err := do()
	k.moment(path)
	return err
}

func (k *killer) moment(path string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.armed = k.armed || strings.Contains(path, ".begun")
	if !k.armed {
		return
	}
	if k.counted++; k.counted == k.at {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

type killFS struct {
	hostfs.Disk
	k *killer
}

func (f killFS) Create(path string) (file hostfs.File, err error) {
	err = f.k.change(path, func() error { file, err = f.Disk.Create(path); return err })
	return file, err
}

func (f killFS) Rename(from, to string) error {
	return f.k.change(from, func() error { return f.Disk.Rename(from, to) })
}

func (f killFS) Remove(path string) error {
	return f.k.change(path, func() error { return f.Disk.Remove(path) })
}

type killFiles struct {
	volume.HostFiles
	k *killer
}

func (f killFiles) Make(list []volume.File) error {
	return f.k.change("", func() error { return f.HostFiles.Make(list) })
}

func (f killFiles) Link(names []volume.Names) error {
	return f.k.change("", func() error { return f.HostFiles.Link(names) })
}

func (f killFiles) Remove(paths []string) error {
	return f.k.change("", func() error { return f.HostFiles.Remove(paths) })
}

func (f killFiles) Resize(path string, size uint64, whole bool) error {
	return f.k.change("", func() error { return f.HostFiles.Resize(path, size, whole) })
}

// killed is a root for daemons that are killed, and what is in it at first.
type killed struct {
	t          *testing.T
	root, copy string
	image      string // what streams call the content of i.img
}

// stream is what was written to a device of 64 KiB since some content.
func (k *killed) stream(from, id string) io.Reader {
	k.t.Helper()
	b := new(bytes.Buffer)
	w, err := rbddiff.NewWriter(b, 0, rbddiff.Header{From: from, To: "n", Size: 64 << 10})
	k.must(err)
	k.must(errors.Join(w.Data(4096, []byte(strings.Repeat("new ", 1024))), w.Zero(32768, 8192), w.Close(rbddiff.Seal{From: id, To: "id"})))
	return b
}

// A daemon that is killed at any change that an operation makes to its files has
// completed or undone it when it runs again; all else is as it was. See also
// package volume, which is killed and loses power in a simulator.
func TestKilledInOperations(t *testing.T) {
	k := furnished(t)
	for _, c := range []struct {
		name string
		do   func(ctx context.Context, s ctl.Service) error
	}{
		{"clone", func(ctx context.Context, s ctl.Service) error {
			return s.Clone(ctx, volume.CloneSpec{Base: k.file("i.img"), Names: []string{"c1", "c2"}, Size: 96 << 10})
		}},
		{"snapshot", func(ctx context.Context, s ctl.Service) error {
			return s.Snapshot(ctx, volume.SnapshotSpec{Of: "b", Names: []string{"bs"}})
		}},
		{"snapshot in a pool", func(ctx context.Context, s ctl.Service) error {
			return s.Snapshot(ctx, volume.SnapshotSpec{Of: "v", Names: []string{"vs2"}})
		}},
		{"merge", func(ctx context.Context, s ctl.Service) error { return s.Merge(ctx, ctl.Object{Name: "x"}) }},
		{"rollback", func(ctx context.Context, s ctl.Service) error { return s.Rollback(ctx, ctl.Object{Name: "as"}) }},
		{"rollback in a pool", func(ctx context.Context, s ctl.Service) error { return s.Rollback(ctx, ctl.Object{Name: "vs"}) }},
		{"reset", func(ctx context.Context, s ctl.Service) error { return s.Reset(ctx, ctl.Objects{Name: "b"}) }},
		{"reset several", func(ctx context.Context, s ctl.Service) error {
			return s.Reset(ctx, ctl.Objects{Names: []string{"b", "x", "v"}})
		}},
		{"resize", func(ctx context.Context, s ctl.Service) error {
			return s.Resize(ctx, volume.ResizeSpec{Name: "b", Size: 128 << 10})
		}},
		{"rename", func(ctx context.Context, s ctl.Service) error {
			return s.RenameObject(ctx, ctl.RenameObject{Name: "a", NewName: "renamed"})
		}},
		{"flatten", func(ctx context.Context, s ctl.Service) error {
			return s.Flatten(ctx, ctl.ObjectFile{Name: "b", File: k.file("new.img")})
		}},
		{"commit", func(ctx context.Context, s ctl.Service) error {
			return s.Commit(ctx, ctl.ObjectFile{Name: "b", File: k.file("new.img")})
		}},
		{"copy in", func(ctx context.Context, s ctl.Service) error {
			return s.CopyIn(ctx, ctl.ObjectFile{Name: "b", File: k.file("j.img")})
		}},
		{"copy out", func(ctx context.Context, s ctl.Service) error {
			return s.CopyOut(ctx, ctl.ObjectFile{Name: "b", File: k.file("new.img")})
		}},
		{"remove", func(ctx context.Context, s ctl.Service) error {
			return s.RemoveObject(ctx, volume.RemoveSpec{Name: "as"})
		}},
		{"remove several", func(ctx context.Context, s ctl.Service) error {
			return s.RemoveObject(ctx, volume.RemoveSpec{Names: []string{"b", "x", "v"}})
		}},
		{"remove a volume", func(ctx context.Context, s ctl.Service) error {
			return s.RemoveObject(ctx, volume.RemoveSpec{Name: "vs"})
		}},
		{"receive", func(ctx context.Context, s ctl.Service) error {
			_, err := s.Receive(ctx, volume.ReceiveSpec{Name: "n", Pool: "p"}, k.stream("", ""))
			return err
		}},
		{"receive on an image", func(ctx context.Context, s ctl.Service) error {
			_, err := s.Receive(ctx, volume.ReceiveSpec{Name: "n", Base: k.file("i.img")}, k.stream("i.img", k.image))
			return err
		}},
		{"pool create", func(ctx context.Context, s ctl.Service) error {
			return s.CreatePool(ctx, volume.PoolSpec{Name: "q", Size: 1 << 20})
		}},
	} {
		t.Run(c.name, func(t *testing.T) { k.kill(t, c.do) })
	}
}

// kill kills daemons at one change of an operation after the other.
func (k *killed) kill(t *testing.T, do func(context.Context, ctl.Service) error) {
	k.t = t
	k.restore()
	before := k.state()
	k.with(func(s *service.Service) { k.must(do(context.Background(), s)) })
	after := k.state()
	if before == after {
		t.Error("it changes nothing")
	}
	stride := 1
	if testing.Short() {
		stride = 17
	}
	for at := 1; ; at += stride {
		k.restore()
		done := k.daemon(at, do)
		switch now := k.state(); {
		case now == after:
		case done || now != before:
			t.Fatalf("killed at change %d (done: %v), there is\n%s\nafter\n%s\nand\n%s", at, done, now, before, after)
		}
		if done {
			t.Logf("%d changes", at)
			return
		}
	}
}

// daemon runs a daemon that is killed at a change, and reports whether the operation
// was over before.
func (k *killed) daemon(at int, do func(context.Context, ctl.Service) error) (done bool) {
	k.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killRoot+"="+k.root, killAt+"="+strconv.Itoa(at))
	out, err := cmd.StdoutPipe()
	k.must(err)
	k.must(cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		k.t.Fatalf("the daemon says %q, %v", line, err)
	}
	c := ctl.NewClient(k.root)
	defer c.Close()
	err = do(context.Background(), c)
	var refused *ctl.Error
	if errors.As(err, &refused) {
		k.t.Errorf("change %d: %v", at, err)
	}
	_ = cmd.Process.Kill() // it is dead already unless err is nil
	var exit *exec.ExitError
	if werr := cmd.Wait(); !errors.As(werr, &exit) {
		k.t.Errorf("the daemon ended with %v", werr)
	}
	return err == nil
}

// state is everything there is once a daemon has settled: objects, what they and
// images hold, files.
func (k *killed) state() string {
	k.t.Helper()
	var text []string
	k.with(func(s *service.Service) {
		for ops := []volume.Operation{{}}; len(ops) > 0; <-time.After(5 * time.Millisecond) {
			var err error
			ops, err = s.Operations(context.Background())
			k.must(err)
		}
		ds, err := s.List(context.Background(), ctl.Query{})
		k.must(err)
		objects, err := s.Objects(context.Background())
		k.must(err)
		for _, d := range ds {
			line := fmt.Sprint(d.Name, " ", d.Sectors, d.Suspended, d.Waiting)
			if i := slices.IndexFunc(objects, func(o volume.Object) bool { return o.Name == d.Name }); i >= 0 && objects[i].Kind != volume.Pool {
				line += fmt.Sprint(" ", objects[i].Kind, objects[i].Base, objects[i].On, k.content(s, d))
			}
			text = append(text, line)
		}
		list, err := s.Orphans(context.Background())
		k.must(err)
		text = append(text, fmt.Sprint("orphans ", list))
	})
	return strings.Join(append(text, k.files()...), "\n")
}

func (k *killed) content(s *service.Service, d ctl.Device) string {
	dev, err := s.Open(ctl.Ref{Name: d.Name}, false)
	k.must(err)
	p := make([]byte, d.Sectors*blk.SectorSize)
	k.must(errors.Join(blk.ReadSectors(env.Real(), dev, p, 0), dev.Close()))
	return fmt.Sprintf(" %.4x", sha256.Sum256(p))
}

// files are the names of all files of volumes, with a sum of images.
func (k *killed) files() (names []string) {
	k.must(filepath.WalkDir(k.root, func(path string, e fs.DirEntry, err error) error {
		in, _, _ := strings.Cut(strings.TrimPrefix(path, k.root+"/"), "/")
		if err != nil || e.IsDir() || in == "devices" || in == "lock" || filepath.Ext(in) == ".sock" {
			return err
		}
		if filepath.Ext(path) == ".img" {
			p, err := os.ReadFile(path)
			path += fmt.Sprintf(" %.4x", sha256.Sum256(p))
			k.must(err)
		}
		names = append(names, path)
		return nil
	}))
	return names
}

// with runs f on a service in this process.
func (k *killed) with(f func(*service.Service)) {
	k.t.Helper()
	s, err := service.New(service.Config{Root: k.root, Types: all.Types()})
	k.must(err)
	k.must(s.Restore(context.Background()))
	f(s)
	k.must(s.Close())
}

func (k *killed) file(name string) string { return filepath.Join(k.root, name) }

func (k *killed) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// restore makes the root what it was at first.
func (k *killed) restore() {
	k.must(os.RemoveAll(k.root))
	k.must(os.CopyFS(k.root, os.DirFS(k.copy)))
}

// furnished is a root with objects of most kinds: a and b are clones of i.img, x is
// one of j.img, as is a snapshot of a, v is a volume with a snapshot vs.
func furnished(t *testing.T) *killed {
	dir := tempRoot(t)
	k := &killed{t: t, root: filepath.Join(dir, "r"), copy: filepath.Join(dir, "copy")}
	k.must(os.Mkdir(k.root, 0o700))
	for i, name := range []string{"i.img", "j.img"} {
		k.must(os.WriteFile(k.file(name), []byte(strings.Repeat(strconv.Itoa(i), 64<<10)), 0o600))
	}
	k.with(func(s *service.Service) {
		ctx := context.Background()
		k.must(s.Clone(ctx, volume.CloneSpec{Base: k.file("i.img"), Names: []string{"a", "b"}}))
		k.must(s.Clone(ctx, volume.CloneSpec{Base: k.file("j.img"), Names: []string{"x"}}))
		k.must(s.CreatePool(ctx, volume.PoolSpec{Name: "p", Size: 1 << 20}))
		k.must(s.Clone(ctx, volume.CloneSpec{Base: k.file("i.img"), Names: []string{"v"}, Pool: "p"}))
		for _, name := range []string{"a", "b", "x", "v"} {
			k.write(s, name, 8)
		}
		for of, name := range map[string]string{"a": "as", "v": "vs"} {
			k.must(s.Snapshot(ctx, volume.SnapshotSpec{Of: of, Names: []string{name}}))
			k.write(s, of, 40)
		}
		in, err := rbddiff.NewReader(k.sent(s, "b", volume.BaseCheckpoint))
		k.must(err)
		for err == nil {
			_, err = in.Next()
		}
		k.image = in.Seal().From
	})
	k.must(os.CopyFS(k.copy, os.DirFS(k.root)))
	return k
}

func (k *killed) sent(s *service.Service, name, from string) io.Reader {
	b := new(bytes.Buffer)
	k.must(s.Send(context.Background(), volume.SendSpec{Name: name, From: from}, b))
	return b
}

// write writes the name of a device to one of its sectors.
func (k *killed) write(s *service.Service, name string, sector uint64) {
	d, err := s.Open(ctl.Ref{Name: name}, true)
	k.must(err)
	p := make([]byte, blk.SectorSize)
	copy(p, name)
	k.must(errors.Join(blk.WriteSectors(env.Real(), d, p, sector, blk.FUA), d.Close()))
}
