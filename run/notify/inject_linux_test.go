//go:build linux && (amd64 || arm64)

package notify

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	opens    = 2000
	injected = "/udm-notify-injected"
)

func TestMain(m *testing.M) {
	if os.Getenv("UDM_NOTIFY_CHILD") == "" {
		os.Exit(m.Run())
	}
	script := `n=0; while [ $n -lt ` + strconv.Itoa(opens) + ` ]; do read -r x <` + injected + ` && [ "$x" = $n ] || { echo "open $n: got '$x'"; exit 1; }; n=$((n + 1)); done`
	err := Exec(Filter{Calls: []uint32{unix.SYS_OPENAT}}, 3, "/bin/sh", []string{"sh", "-c", script}, os.Environ())
	fmt.Println(err)
	os.Exit(1)
}

// Each open gives the caller the file that was injected for it, while signals interrupt
// the thread that injects, as those of Go's scheduler do.
func TestInjectUnderSignals(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	socket := os.NewFile(uintptr(pair[1]), "socket")
	self, err := os.Executable()
	must(t, err)
	out := t.TempDir() + "/out"
	f, err := os.Create(out)
	must(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env, cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = append(os.Environ(), "UDM_NOTIFY_CHILD=1"), []*os.File{socket}, f, f
	runtime.LockOSThread() // the child ends with the thread that started it
	defer runtime.UnlockOSThread()
	must(t, cmd.Start())
	must(t, socket.Close())
	l, err := Accept(pair[0])
	must(t, err)
	must(t, unix.Close(pair[0]))
	stop := interrupt(t, unix.Gettid())
	serveInjections(t, l)
	stop()
	err = cmd.Wait()
	if b, _ := os.ReadFile(out); err != nil {
		t.Errorf("%v: %s", err, b)
	}
	must(t, l.Close())
}

// interrupt sends signals to a thread until stop is called.
func interrupt(t *testing.T, tid int) (stop func()) {
	var over atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !over.Load() {
			if err := unix.Tgkill(os.Getpid(), tid, unix.SIGURG); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	return func() {
		over.Store(true)
		<-done
	}
}

// serveInjections answers opens of the name by files that have the number of the open.
func serveInjections(t *testing.T, l *Listener) {
	n := 0
	for c := l.Receive(); c != nil; c = l.Receive() {
		if path, err := c.String(c.Args[1]); err != nil || path != injected {
			l.Continue(c)
			continue
		}
		fd, err := unix.MemfdCreate("injected", unix.MFD_CLOEXEC)
		must(t, err)
		_, err = unix.Pwrite(fd, fmt.Appendln(nil, n), 0)
		must(t, err)
		l.Inject(c, fd, false)
		n++
	}
	if n != opens {
		t.Errorf("%d opens were seen, want %d", n, opens)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
