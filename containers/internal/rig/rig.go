// Package rig runs the programs that tests of this module need: a udm daemon, which is
// built from the tree around the module, and others. They end with the test.
package rig

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"udm/ctl"
	"udm/test/need"
)

// Needs needs root, loop devices, FUSE and programs.
func Needs(t testing.TB, programs ...string) {
	t.Helper()
	need.Root(t)
	need.Open(t, "/dev/fuse", "/dev/loop-control")
	need.Tools(t, programs...)
}

var built = struct {
	sync.Mutex
	dir string
}{}

// Main is the TestMain of a package that builds programs.
func Main(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// Build builds a command of the module in a directory, which is relative to this
// module's, once, and returns its path.
func Build(t testing.TB, module, pkg string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "udm-bin")
		if err != nil {
			t.Fatal(err)
		}
		built.dir = dir
	}
	path := filepath.Join(built.dir, filepath.Base(pkg))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	cmd := exec.Command("go", "build", "-ldflags=-s -w", "-o", path, pkg)
	cmd.Dir, cmd.Env = filepath.Join(Root(t), module), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// Root is the directory of this module.
func Root(t testing.TB) string {
	t.Helper()
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(mod)))
}

// Dir is a new directory with a short name, for sockets, that goes with the test, with
// whatever is still mounted in it.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "udm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, m := range Mounted(t, dir) {
			_ = unix.Unmount(m, unix.MNT_DETACH)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Mounted are the places below a directory where something is mounted, the last first.
func Mounted(t testing.TB, dir string) (at []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if place := strings.Fields(line)[1]; strings.HasPrefix(place, dir+"/") {
			at = append([]string{place}, at...)
		}
	}
	return at
}

// Loops are the loop devices on files below a directory.
func Loops(t testing.TB, dir string) (loops []string) {
	t.Helper()
	files, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(text), dir+"/") {
			loops = append(loops, "/dev/"+strings.Split(f, "/")[3])
		}
	}
	return loops
}

// Process is a program that runs until it is stopped or killed.
type Process struct {
	t     testing.TB
	args  []string
	ready string // what it says when it is ready
	cmd   *exec.Cmd
	done  chan struct{} // closed when all of its output has been read
	heir  *heir         // the process that has taken over; nil: none

	mu  sync.Mutex
	log bytes.Buffer // guarded by mu
}

// Start runs a program and waits until a line of its output has the words.
func Start(t testing.TB, ready string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, args: args, ready: ready}
	p.Start()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(args[0]), p.Log())
		}
	})
	return p
}

// Start runs the program again after it has ended.
func (p *Process) Start() {
	p.t.Helper()
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StderrPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		p.t.Fatal(err)
	}
	is := make(chan bool)
	p.done = make(chan struct{})
	go p.read(bufio.NewScanner(out), is)
	if !<-is {
		p.cmd.Wait()
		p.t.Fatalf("%s does not start:\n%s", p.args[0], p.Log())
	}
}

func (p *Process) read(lines *bufio.Scanner, is chan bool) {
	defer close(p.done)
	defer close(is)
	lines.Buffer(nil, 1<<20)
	for told := false; lines.Scan(); {
		p.mu.Lock()
		fmt.Fprintln(&p.log, lines.Text())
		p.mu.Unlock()
		if !told && strings.Contains(lines.Text(), p.ready) {
			told = true
			is <- true
		}
	}
}

// Log is what the program has said.
func (p *Process) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Stop ends the program in order, Kill at once.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Kill ends the program at once.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

func (p *Process) end(sig syscall.Signal) {
	if p.cmd == nil {
		return
	}
	if p.heir != nil {
		p.heir.end(sig)
		p.heir = nil
	} else {
		p.cmd.Process.Signal(sig)
	}
	<-p.done
	p.cmd.Wait()
	p.cmd = nil
}

// heir is a process that is no child of this one, and a guard that ends it if this one dies.
type heir struct {
	pid   int
	guard *exec.Cmd
	alive io.Closer
}

func follow(t testing.TB, pid int) *heir {
	t.Helper()
	guard := exec.Command("sh", "-c", "read -r _; kill -9 $0", strconv.Itoa(pid))
	alive, err := guard.StdinPipe()
	if err == nil {
		err = guard.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	return &heir{pid, guard, alive}
}

func (h *heir) end(sig syscall.Signal) {
	h.guard.Process.Kill()
	h.guard.Wait()
	h.alive.Close()
	syscall.Kill(h.pid, sig)
}

// Daemon is a udm daemon.
type Daemon struct {
	*Process
	Root    string
	Client  *ctl.Client
	program string
}

// StartDaemon runs a daemon, by a program that runs others if one is given.
func StartDaemon(t testing.TB, by ...string) *Daemon {
	t.Helper()
	d := &Daemon{Root: filepath.Join(Dir(t), "r"), program: Build(t, "..", "udm/cmd/udm")}
	d.Client = ctl.NewClient(d.Root)
	t.Cleanup(d.Client.Close)
	d.Process = Start(t, "msg=ready", append(by, d.program, "daemon", "--root", d.Root)...)
	return d
}

// Start runs the daemon again. Connections to the one before are forgotten, as those of
// any client that starts.
func (d *Daemon) Start() {
	d.t.Helper()
	d.Process.Start()
	d.Client.Close()
}

// Replace has another process of the program take over.
func (d *Daemon) Replace() {
	d.t.Helper()
	_, err := d.Client.Replace(context.Background(), ctl.Replace{Program: d.program})
	if err != nil {
		d.t.Fatal(err)
	}
	d.Client.Close()
	v, err := d.Client.Version(context.Background())
	if err != nil {
		d.t.Fatal(err)
	}
	if d.heir != nil {
		d.heir.end(0)
	}
	d.heir = follow(d.t, v.PID)
}

// Restart ends the daemon in order and runs it again.
func (d *Daemon) Restart() {
	d.t.Helper()
	d.Stop()
	d.Start()
}

// Keep runs a keeper, so that what is in use outlives a restart of the daemon.
func (d *Daemon) Keep() {
	d.t.Helper()
	Start(d.t, "msg=ready", d.program, "keep", "--root", d.Root)
}

// Objects are the names of the daemon's objects with a prefix.
func (d *Daemon) Objects(t testing.TB, prefix string) (names []string) {
	t.Helper()
	objects, err := d.Client.Objects(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if strings.HasPrefix(o.Name, prefix) {
			names = append(names, o.Name)
		}
	}
	return names
}

// Until waits until f is true. It polls, because f asks other programs, which do not
// announce it.
func Until(t testing.TB, what string, f func() bool) {
	t.Helper()
	for range 6000 {
		if f() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s: not within a minute", what)
}
