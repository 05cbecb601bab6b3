package script

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"udm/archive"
	"udm/archive/place"
	"udm/archive/s3/s3test"
	"udm/ctl"
	"udm/volume"
)

// killed is an archive, and a daemon with what is archived there.
type killed struct {
	t      *testing.T
	dir    string
	root   string
	client *ctl.Client
	want   map[string][]byte // contents of snapshots
	store  string            // where the program finds it
	near   string            // where the test does
	reset  func()            // puts it into its first state
	// kill kills a program at its nth request, before or after it is carried out, when it
	// has started. The function that it returns ends that.
	kill func(n int, after bool, started chan *os.Process) (end func())
}

// TestKilledArchive kills each command of an archive, as a process, at each of its requests,
// and sees that every snapshot is whole or not there, and so is what is restored.
func TestKilledArchive(t *testing.T) {
	k := &killed{t: t, dir: shortDir(t), want: map[string][]byte{}}
	k.root = filepath.Join(k.dir, "r")
	startFor(t, k.root)
	k.client = ctl.NewClient(k.root)
	t.Cleanup(k.client.Close)
	run(t, k.root, "pool", "create", "p", "--size", "64M")
	run(t, k.root, "volume", "create", "p", "disk", "--size", "4M")
	rng := rand.New(rand.NewPCG(1, 2))
	for _, name := range []string{"monday", "tuesday"} {
		p := make([]byte, 1<<20)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		must(t, os.WriteFile(k.at("image"), p, 0o600))
		run(t, k.root, "cp", k.at("image"), "disk")
		run(t, k.root, "snapshot", "disk", name)
		k.want[name] = append(p, make([]byte, 3<<20)...)
	}
	t.Run("folder", func(t *testing.T) { k.folder(t); k.commands(t, 5, false) })
	t.Run("bucket", func(t *testing.T) { k.bucket(t); k.commands(t, 1, false, true) })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (k *killed) at(name string) string { return filepath.Join(k.dir, name) }

// begin archives the first snapshot, and the second under another name.
func (k *killed) begin(t *testing.T) {
	run(t, k.root, "archive", "init", k.store)
	run(t, k.root, "archive", "create", k.store, "monday")
	run(t, k.root, "snapshot", "tuesday", "gone")
	run(t, k.root, "archive", "create", k.store, "gone", "--full")
	run(t, k.root, "remove", "gone")
}

func (k *killed) bucket(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_REGION", "us-east-1")
	b := &s3test.Bucket{}
	back := httptest.NewServer(b)
	p := &s3test.Proxy{To: back.URL}
	front := httptest.NewServer(p)
	t.Cleanup(func() { front.Close(); back.Close() })
	named := func(url string) string { return "s3+" + url + "/bucket/backups" }
	k.store, k.near = named(front.URL), named(back.URL)
	k.begin(t)
	first := b.Objects()
	k.reset = func() { b.Reset(first) }
	k.kill = func(n int, after bool, started chan *os.Process) func() {
		end := func() { kill(started) }
		p.Begin(func(i int) s3test.Harm {
			switch {
			case i != n:
				return s3test.None
			case after:
				return s3test.Swallow
			}
			end()
			return s3test.Refuse
		}, end)
		return func() { p.Begin(nil, nil) }
	}
}

// folder kills at the nth event that inotify tells of.
func (k *killed) folder(t *testing.T) {
	k.store, k.near = k.at("store"), k.at("store")
	must(t, os.Mkdir(k.store, 0o700))
	k.begin(t)
	first := k.at("first")
	must(t, os.CopyFS(first, os.DirFS(k.store)))
	k.reset = func() {
		must(t, os.RemoveAll(k.store))
		must(t, os.CopyFS(k.store, os.DirFS(first)))
	}
	k.kill = func(n int, _ bool, started chan *os.Process) func() {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		must(t, err)
		must(t, filepath.WalkDir(k.store, func(path string, e fs.DirEntry, err error) error {
			if err == nil && e.IsDir() {
				_, err = unix.InotifyAddWatch(fd, path, unix.IN_ALL_EVENTS)
			}
			return err
		}))
		f, ended := os.NewFile(uintptr(fd), "inotify"), make(chan bool)
		go func() {
			defer close(ended)
			for p := make([]byte, 4096); n > 0; {
				m, err := f.Read(p)
				if err != nil {
					return
				}
				n -= events(p[:m])
			}
			kill(started)
		}()
		return func() {
			f.Close()
			close(started)
			<-ended
		}
	}
}

// events is how many events of inotify there are.
func events(p []byte) (n int) {
	for ; len(p) > 0; n++ {
		p = p[unix.SizeofInotifyEvent+binary.NativeEndian.Uint32(p[12:]):] // the length of the name
	}
	return n
}

// kill kills a program when it has started. It may have ended.
func kill(started chan *os.Process) {
	if p := <-started; p != nil {
		_ = p.Kill()
	}
}

// commands kills the commands one after the other, at every so manieth moment.
func (k *killed) commands(t *testing.T, step int, afters ...bool) {
	k.t = t
	if testing.Short() {
		step *= 40
	}
	for _, c := range []string{"create STORE tuesday", "restore STORE monday --file " + k.at("out"), "restore STORE monday --pool p --name back",
		"remove STORE gone", "prune STORE"} {
		kills := 0
		for _, after := range afters {
			for n := 1 + len(c)%min(step, 4); k.once(strings.Fields(strings.Replace(c, "STORE", k.store, 1)), n, after); n += step {
				kills++
			}
		}
		t.Logf("%s: killed %d times", c, kills)
		if kills == 0 {
			t.Errorf("%s was never killed", c)
		}
	}
}

// once reports whether the command was killed before its end.
func (k *killed) once(args []string, n int, after bool) bool {
	k.t.Helper()
	k.reset()
	if args[0] == "prune" {
		run(k.t, k.root, "archive", "remove", k.near, "gone")
	}
	started := make(chan *os.Process, 1)
	end := k.kill(n, after, started)
	c := exec.Command(udm(), append([]string{"archive", "--root", k.root}, args...)...)
	var said bytes.Buffer
	c.Stderr = &said
	must(k.t, c.Start())
	started <- c.Process
	err := c.Wait()
	end()
	if !k.check() {
		k.t.Fatalf("%s, killed at %d (after: %t)", args, n, after)
	}
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.Exited()) {
		k.t.Fatalf("%s: %v: %s", args, err, &said)
	}
	return err != nil
}

// check sees that all that is there is whole.
func (k *killed) check() bool {
	k.archived()
	if p, err := os.ReadFile(k.at("out")); err == nil {
		k.same("monday", p, "restored as a file")
		must(k.t, os.Remove(k.at("out")))
	}
	k.restored()
	return !k.t.Failed()
}

func (k *killed) same(name string, p []byte, what string) {
	k.t.Helper()
	if !bytes.Equal(p, k.want[name]) {
		k.t.Errorf("%s, %s, has another content", name, what)
	}
}

func (k *killed) archived() {
	k.t.Helper()
	ctx := context.Background()
	a, err := place.OpenArchive(ctx, k.near, "")
	must(k.t, err)
	v, err := a.Verify(ctx, nil, nil)
	must(k.t, err)
	if len(v.Damaged) > 0 {
		k.t.Errorf("damaged: %v", v.Damaged)
	}
	list, err := a.List(ctx)
	must(k.t, err)
	if !slices.ContainsFunc(list, func(i archive.Info) bool { return i.Name == "monday" }) {
		k.t.Errorf("monday is lost: %+v", list)
	}
	for _, i := range list {
		s, err := a.Snapshot(ctx, i.ID, nil)
		must(k.t, err)
		p := make(buffer, i.Size)
		must(k.t, s.Restore(ctx, p, nil))
		k.same(strings.Replace(i.Name, "gone", "tuesday", 1), p, "archived")
	}
}

type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

// restored waits until the daemon has ended what it did for the program, and sees that it
// has the volume as a whole or not at all.
func (k *killed) restored() {
	k.t.Helper()
	ctx := context.Background()
	for {
		objects, err := k.client.Objects(ctx)
		must(k.t, err)
		if slices.ContainsFunc(objects, func(o volume.Object) bool { return o.Name == "back-incoming" }) {
			continue // it is being undone
		}
		operations, err := k.client.Operations(ctx)
		must(k.t, err)
		if len(operations) > 0 {
			continue
		}
		if slices.ContainsFunc(objects, func(o volume.Object) bool { return o.Name == "back" }) {
			break
		}
		return
	}
	run(k.t, k.root, "cp", "back", k.at("back"))
	p, err := os.ReadFile(k.at("back"))
	must(k.t, err)
	k.same("monday", p, "restored as a volume")
	must(k.t, os.Remove(k.at("back")))
	run(k.t, k.root, "remove", "back")
}
