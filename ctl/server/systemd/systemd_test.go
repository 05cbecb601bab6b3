package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil {
		t.Errorf("without a manager: %v", err)
	}
	path := filepath.Join(t.TempDir(), "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	for _, state := range []string{Ready, Reloading, Ready, Stopping} {
		if err := Notify(state); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 100)
		n, err := c.Read(p)
		if err != nil || string(p[:n]) != state {
			t.Errorf("%q, %v; want %s", p[:n], err, state)
		}
	}
	t.Setenv("NOTIFY_SOCKET", path+"-missing")
	if err := Notify(Ready); err == nil {
		t.Error("a manager that is not there was told")
	}
}

// passOn runs this test binary's TestChild as a manager does, with sockets.
func passOn(t *testing.T, names string, sockets ...*os.File) string {
	t.Helper()
	// The shell's number becomes the child's.
	c := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run='^TestChild$' -test.v`, os.Args[0])
	c.Env = append(os.Environ(), "SYSTEMD_TEST_CHILD=1", "LISTEN_FDS="+strconv.Itoa(len(sockets)), "LISTEN_FDNAMES="+names)
	c.ExtraFiles = sockets
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestChild is the daemon that passOn starts; by itself it is a process without
// sockets.
func TestChild(t *testing.T) {
	all, err := Listeners()
	if os.Getenv("SYSTEMD_TEST_CHILD") == "" {
		if all != nil || err != nil {
			t.Errorf("%v, %v", all, err)
		}
		return
	}
	if err != nil {
		fmt.Println("error:", err)
	}
	for name, l := range all {
		fmt.Printf("listener: %s at %s\n", name, l.Addr())
		c, err := net.Dial(l.Addr().Network(), l.Addr().String())
		if err != nil {
			t.Error(err)
			continue
		}
		if _, err := l.Accept(); err != nil {
			t.Error(err)
		}
		c.Close()
	}
	if again, err := Listeners(); again != nil || err != nil || os.Getenv("LISTEN_FDS") != "" {
		t.Errorf("the sockets are there for others, too: %v, %v", again, err)
	}
}

func TestListeners(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	var files []*os.File
	for network, address := range map[string]string{"unix": path, "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if files = append(files, f); network == "unix" && len(files) == 2 {
			files[0], files[1] = files[1], files[0]
		}
	}
	out := passOn(t, "control:nbd-tcp", files...)
	if !strings.Contains(out, "listener: control at "+path+"\n") || !strings.Contains(out, "listener: nbd-tcp at 127.0.0.1:") {
		t.Error(out)
	}
	if out := passOn(t, "same:same", files...); !strings.Contains(out, "error: two sockets are named same") {
		t.Error(out)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if out := passOn(t, "", null); !strings.Contains(out, "error: socket 3, unknown: ") {
		t.Error(out)
	}
}
