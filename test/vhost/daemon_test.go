//go:build linux

package vhost

import (
	"bufio"
	"context"
	"crypto/sha256"
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

	"golang.org/x/sys/unix"

	"udm/ctl"
	"udm/test/kernel/nbdclient"
	"udm/test/program"
	"udm/volume"
)

// daemon is udm daemon with a root of its own, which others may follow.
type daemon struct {
	*ctl.Client
	t    *testing.T
	udm  string
	root string

	mu  sync.Mutex
	log strings.Builder // guarded by mu
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t: t, udm: program.Build(t, "udm/cmd/udm"), root: t.TempDir()}
	d.Client = ctl.NewClient(d.root)
	d.start()
	t.Cleanup(func() {
		d.end(syscall.SIGTERM)
		d.Close()
		d.mu.Lock()
		defer d.mu.Unlock()
		if t.Failed() || strings.Contains(d.log.String(), "level=ERROR") {
			t.Errorf("the daemon's log:\n%s", d.log.String())
		}
	})
	return d
}

// start runs a daemon, and waits until it is ready.
func (d *daemon) start() {
	d.t.Helper()
	cmd := exec.Command(d.udm, "daemon", "--root", d.root)
	out, err := cmd.StderrPipe()
	must(d.t, err)
	must(d.t, cmd.Start())
	ready := make(chan struct{})
	go d.read(out, cmd, ready)
	<-ready
}

// read reads what a daemon and those that replace it say, and tells when the first is ready,
// or over.
func (d *daemon) read(out io.Reader, cmd *exec.Cmd, ready chan<- struct{}) {
	told := false
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		d.mu.Lock()
		fmt.Fprintln(&d.log, lines.Text())
		d.mu.Unlock()
		if !told && strings.Contains(lines.Text(), "msg=ready") {
			told = true
			close(ready)
		}
	}
	_ = cmd.Wait() // it may have been killed
	if !told {
		close(ready)
	}
}

// replace has the daemon replaced by another process.
func (d *daemon) replace() {
	d.t.Helper()
	if out, err := exec.Command(d.udm, "daemon", "--root", d.root, "--replace").CombinedOutput(); err != nil {
		d.t.Fatalf("--replace: %v\n%s", err, out)
	}
}

// restart kills the daemon and starts another one, as a service manager does.
func (d *daemon) restart() {
	d.t.Helper()
	d.end(syscall.SIGKILL)
	d.start()
}

// end ends the daemon of now, and waits for its end.
func (d *daemon) end(signal syscall.Signal) {
	d.t.Helper()
	text, err := os.ReadFile(filepath.Join(d.root, "lock"))
	must(d.t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	must(d.t, err)
	fd, err := unix.PidfdOpen(pid, 0)
	must(d.t, err)
	defer unix.Close(fd)
	must(d.t, unix.PidfdSendSignal(fd, signal, nil, 0))
	for err = unix.EINTR; err == unix.EINTR; {
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
	}
	must(d.t, err)
}

// disks are the devices of the guest: one over a file, from which it boots, and a thin volume.
var disks = []string{"boot", "thin"}

// makeDisks makes them.
func (d *daemon) makeDisks(image string) {
	d.t.Helper()
	ctx := context.Background()
	_, err := d.Create(ctx, ctl.Create{Name: "boot", Table: fmt.Sprintf("0 %d linear %s 0", diskLen/512, image)})
	must(d.t, err)
	must(d.t, d.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: diskLen}))
	must(d.t, d.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "thin", Size: diskLen}))
}

// sockets exports the disks once more, each on a socket with this suffix.
func (d *daemon) sockets(suffix string) (paths []string) {
	d.t.Helper()
	for _, name := range disks {
		path := filepath.Join(d.root, name+suffix)
		_, err := d.Export(context.Background(), ctl.Export{Ref: ctl.Ref{Name: name}, Path: path, Queues: 2})
		must(d.t, err)
		paths = append(paths, path)
	}
	return paths
}

// sum is what the guest says of what its loads have written, seen from the host.
func (d *daemon) sum() string {
	d.t.Helper()
	var sums []string
	for _, name := range disks {
		c, err := nbdclient.Dial(filepath.Join(d.root, ctl.NBDSocket), name)
		must(d.t, err)
		p := make([]byte, 8<<20)
		must(d.t, c.Read(p, 64<<20))
		must(d.t, c.Close())
		sum := sha256.Sum256(p)
		sums = append(sums, fmt.Sprintf("%x", sum[:8]))
	}
	return strings.Join(sums, ",")
}
