package fs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"udm/ctl"
	"udm/test/need"
	"udm/test/program"
	"udm/test/watchdog"
)

var (
	all    = flag.Bool("all", false, "every file system on every stack, not each once")
	times  = flag.Int("times", 2, "how many snapshots are taken and how many daemons killed, in a row")
	binary = flag.String("udm", "", "udm to test, instead of one built from this tree")
)

func TestMain(m *testing.M) {
	ownMounts()
	program.Main(m)
}

// udm is the program to test.
func udm(t *testing.T) string {
	t.Helper()
	if *binary == "" {
		return program.Build(t, "udm/cmd/udm")
	}
	path, err := filepath.Abs(*binary)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// needs needs root, loop devices, FUSE and programs.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	need.Root(t)
	need.Open(t, "/dev/fuse", "/dev/loop-control")
	need.Tools(t, programs...)
}

// sh runs a program and returns what it prints.
func sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := try(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// longest is the own time of a program, see package watchdog: ten times what the
// longest needs.
const longest = 10 * time.Minute

func try(name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := watchdog.Run(cmd, longest); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &out)
	}
	return out.String(), nil
}

// rig is a daemon and its client.
type rig struct {
	*testing.T
	dir, root string
	client    *ctl.Client
	cmd       *exec.Cmd // nil: it does not run
	log       *bytes.Buffer
	drained   chan bool // closed when all of the log has been read
}

// newRig starts a daemon that ends with the test.
func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, dir: t.TempDir(), log: new(bytes.Buffer)}
	r.root = filepath.Join(r.dir, "r")
	r.client = ctl.NewClient(r.root)
	r.start()
	t.Cleanup(func() {
		if r.cmd == nil {
			r.start() // to take away what the last one left
		}
		r.stop()
		r.client.Close()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", r.log)
		}
	})
	return r
}

// start runs the daemon and waits until it is ready.
func (r *rig) start(args ...string) {
	r.Helper()
	r.cmd = exec.Command(udm(r.T), append([]string{"daemon", "--root", r.root}, args...)...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := r.cmd.StderrPipe()
	if err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		r.Fatal(err)
	}
	ready := make(chan bool)
	go func() {
		defer close(ready)
		lines := bufio.NewScanner(out)
		for told := false; lines.Scan(); {
			fmt.Fprintln(r.log, lines.Text())
			if !told && strings.Contains(lines.Text(), "msg=ready") {
				told = true
				ready <- true
			}
		}
	}()
	if !<-ready {
		r.cmd.Wait()
		r.Fatalf("the daemon does not start:\n%s", r.log)
	}
	r.drained = ready
}

// stop ends the daemon in order.
func (r *rig) stop() {
	r.Helper()
	if err := r.end(syscall.SIGTERM); err != nil {
		r.Errorf("the daemon ended badly: %v", err)
	}
}

// kill ends the daemon at once.
func (r *rig) kill() { r.end(syscall.SIGKILL) }

func (r *rig) end(sig syscall.Signal) error {
	r.cmd.Process.Signal(sig)
	<-r.drained
	err := r.cmd.Wait()
	r.cmd = nil
	r.client.Close()
	return err
}

// udm runs the command line.
func (r *rig) udm(args ...string) string {
	r.Helper()
	return strings.TrimSpace(sh(r.T, udm(r.T), append([]string{"--root", r.root}, args...)...))
}

// create makes a device with one line of a table.
func (r *rig) create(name string, sectors uint64, format string, args ...any) {
	r.Helper()
	_, err := r.client.Create(context.Background(), ctl.Create{Name: name,
		Table: fmt.Sprintf("0 %d ", sectors) + fmt.Sprintf(format, args...)})
	r.must(err)
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *rig) message(device, text string) {
	r.Helper()
	_, err := r.client.Message(context.Background(), ctl.Message{Ref: ctl.Ref{Name: device}, Text: text})
	r.must(err)
}

func (r *rig) remove(name string) {
	r.Helper()
	r.must(r.client.Remove(context.Background(), ctl.Remove{Ref: ctl.Ref{Name: name}}))
}

// whileSuspended stops a device's I/O while it does something.
func (r *rig) whileSuspended(device string, do func()) {
	r.Helper()
	ref := ctl.Suspend{Ref: ctl.Ref{Name: device}}
	_, err := r.client.Suspend(context.Background(), ref)
	r.must(err)
	do()
	_, err = r.client.Resume(context.Background(), ref)
	r.must(err)
}

// status is the only status line of a device.
func (r *rig) status(name string) string {
	r.Helper()
	d, err := r.client.Device(context.Background(), ctl.Query{Ref: ctl.Ref{Name: name}, With: []ctl.With{ctl.WithStatus}})
	r.must(err)
	return d.Status[0].Params
}

// attach makes a loop device from a device.
func (r *rig) attach(name string) string {
	r.Helper()
	a, err := r.client.Attach(context.Background(), ctl.Attach{Ref: ctl.Ref{Name: name}})
	r.must(err)
	return a.Path
}

// sameOr checks that a device is attached again as it was before, unless another
// program has taken that place meanwhile.
func (r *rig) sameOr(before, now string) string {
	r.Helper()
	backing, err := os.ReadFile("/sys/block/" + filepath.Base(before) + "/loop/backing_file")
	if before != now && (err != nil || strings.HasPrefix(string(backing), r.root)) {
		r.Fatalf("attached as %s, before as %s", now, before)
	}
	return now
}

func (r *rig) detach(name string) {
	r.Helper()
	r.must(r.client.Detach(context.Background(), ctl.Ref{Name: name}))
}

// file makes a sparse file.
func (r *rig) file(name string, mib int64) string {
	r.Helper()
	path := filepath.Join(r.dir, name)
	f, err := os.Create(path)
	r.must(err)
	r.must(errors.Join(f.Truncate(mib<<20), f.Close()))
	return path
}

// mounted mounts a block device until the test ends or unmount is called.
func (r *rig) mount(device, options string) string {
	r.Helper()
	dir := r.TempDir()
	args := []string{device, dir}
	if options != "" {
		args = append([]string{"-o", options}, args...)
	}
	sh(r.T, "mount", args...)
	r.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func (r *rig) unmount(dir string) {
	r.Helper()
	sh(r.T, "umount", dir)
}
