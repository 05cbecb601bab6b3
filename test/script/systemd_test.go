package script

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"udm/ctl"
)

// A daemon under a service manager: it takes the sockets that are passed on, tells
// when it is ready, when it opens its log anew and when it ends, and leaves the
// sockets where they are.
func TestServiceManager(t *testing.T) {
	dir := t.TempDir()
	root, logFile := filepath.Join(dir, "root"), filepath.Join(dir, "log")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	control, file := managedSocket(t, "unix", filepath.Join(root, ctl.Socket))
	nbd, nbdFile := managedSocket(t, "tcp", "127.0.0.1:0")

	d := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, udm(), "daemon", "--root", root, "--log", logFile)
	d.Env = append(os.Environ(), "LISTEN_FDS=2", "LISTEN_FDNAMES=control:nbd-tcp", "NOTIFY_SOCKET="+told.LocalAddr().String())
	d.ExtraFiles, d.Stderr = []*os.File{file, nbdFile}, t.Output()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer d.Process.Kill()
	expect := func(states ...string) {
		t.Helper()
		for _, want := range states {
			p := make([]byte, 100)
			if n, err := told.Read(p); err != nil || string(p[:n]) != want {
				t.Fatalf("told %q, %v; want %s", p[:n], err, want)
			}
		}
	}
	expect("READY=1")
	c := ctl.NewClient(root)
	defer c.Close()
	list, err := c.FrontEnds(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	addresses := make(map[string]string)
	for _, f := range list {
		addresses[f.Name] = strings.Join(f.Addresses, " ")
	}
	if addresses["control"] != control.Addr().String() || addresses["nbd-tcp"] != nbd.Addr().String() {
		t.Errorf("served at %v", addresses)
	}
	if err := os.Rename(logFile, logFile+".old"); err != nil {
		t.Fatal(err)
	}
	if err := d.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("RELOADING=1", "READY=1")
	if _, err := os.Stat(logFile); err != nil {
		t.Error(err)
	}
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	expect("STOPPING=1")
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(control.Addr().String()); err != nil {
		t.Errorf("the manager's socket is gone: %v", err)
	}
}

// A service manager may reload a daemon that logs to standard error.
func TestReloadWithoutLogFile(t *testing.T) {
	dir := t.TempDir()
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	d := exec.Command(udm(), "daemon", "--root", filepath.Join(dir, "root"))
	d.Env = append(os.Environ(), "NOTIFY_SOCKET="+told.LocalAddr().String())
	d.Stderr = t.Output()
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	defer d.Process.Kill()
	for _, s := range []struct {
		states []string
		next   syscall.Signal
	}{{[]string{"READY=1"}, syscall.SIGHUP}, {[]string{"RELOADING=1", "READY=1"}, syscall.SIGTERM}, {[]string{"STOPPING=1"}, 0}} {
		for _, want := range s.states {
			p := make([]byte, 100)
			if n, err := told.Read(p); err != nil || string(p[:n]) != want {
				t.Fatalf("told %q, %v; want %s", p[:n], err, want)
			}
		}
		if s.next != 0 {
			if err := d.Process.Signal(s.next); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

// A daemon ends in order when all who listened to it are gone, and it has that to say.
func TestNobodyListens(t *testing.T) {
	dir := t.TempDir()
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	d := exec.Command(udm(), "daemon", "--root", filepath.Join(dir, "root"))
	d.Env = append(os.Environ(), "NOTIFY_SOCKET="+told.LocalAddr().String())
	log, err := d.StderrPipe()
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer d.Process.Kill()
	if _, err := told.Read(make([]byte, 100)); err != nil { // it is ready
		t.Fatal(err)
	}
	told.Close()
	log.Close()
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}

// managedSocket is a socket that belongs to a service manager, and its file to pass on.
func managedSocket(t *testing.T, network, address string) (net.Listener, *os.File) {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); l.Close() })
	return l, f
}

// A socket that the daemon does not know is refused.
func TestUnknownSocket(t *testing.T) {
	_, file := managedSocket(t, "tcp", "127.0.0.1:0")
	d := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, udm(), "daemon", "--root", filepath.Join(t.TempDir(), "root"))
	d.Env = append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=udm.socket")
	d.ExtraFiles = []*os.File{file}
	out, err := d.CombinedOutput()
	if err == nil || !strings.Contains(string(out), `a socket is named "udm.socket"; use FileDescriptorName=`) {
		t.Errorf("%v: %s", err, out)
	}
}
