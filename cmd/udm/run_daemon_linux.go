package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"udm/ctl/server/systemd"
)

// ownDaemon is a daemon that serves one command.
type ownDaemon struct {
	cmd   *exec.Cmd
	root  string
	log   bytes.Buffer
	ended chan struct{} // closed when the process has ended
}

// startOwnDaemon starts a daemon with a root of its own and waits until it is ready. The
// daemon ends with this process, however that ends.
func startOwnDaemon() (*ownDaemon, error) {
	root, err := os.MkdirTemp(runtimeDir(), "udm-run-")
	if err != nil {
		return nil, err
	}
	d := &ownDaemon{root: root, ended: make(chan struct{})}
	if err := d.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(root))
	}
	return d, nil
}

// runtimeDir is a directory for what need not be durable, in memory if there is one.
func runtimeDir() string {
	for _, dir := range []string{os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"} {
		if dir != "" && unix.Access(dir, unix.W_OK) == nil {
			return dir
		}
	}
	return os.TempDir()
}

func (d *ownDaemon) start() error {
	path := filepath.Join(d.root, "notify")
	states, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return err
	}
	d.cmd = exec.Command("/proc/self/exe", "daemon", "--root", d.root)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+path, ownDaemonEnv+"=1")
	d.cmd.Stderr = &d.log
	// Ctrl-C is not for it. The kernel sends Pdeathsig when the thread that started the
	// child ends.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread()
	if err := d.cmd.Start(); err != nil {
		return errors.Join(err, states.Close())
	}
	go func() {
		_ = d.cmd.Wait()   // the log says why
		_ = states.Close() // ends untilReady
		close(d.ended)
	}()
	return d.untilReady(states)
}

func (d *ownDaemon) untilReady(states net.Conn) error {
	for b := make([]byte, 64); ; {
		n, err := states.Read(b)
		if err != nil {
			<-d.ended
			return fmt.Errorf("the daemon for this command ended: %s", lastLine(d.log.String()))
		}
		if string(b[:n]) == systemd.Ready {
			return nil
		}
	}
}

// end ends the daemon and removes what it has saved.
func (d *ownDaemon) end() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it has ended
	<-d.ended
	if err := os.RemoveAll(d.root); err != nil {
		fmt.Fprintln(os.Stderr, "udm run:", err)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
