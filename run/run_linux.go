//go:build linux && (amd64 || arm64)

package run

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"udm/ctl"
	"udm/run/notify"
)

// Run runs a program on the devices of a daemon and returns its exit code: 128 and the
// signal's number if a signal ended it.
func Run(ctx context.Context, service ctl.Service, cfg Config) (code int, err error) {
	s, err := newSession(ctx, service, cfg)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	followed, err := s.devices.follow(ctx, s.happened)
	if err != nil {
		return 0, err
	}
	defer func() {
		cancel()
		followed()
		s.controls.close()
		s.forgetDisks()
	}()
	return s.supervise(cfg)
}

// happened passes events on that the kernel tells who polls /dev/mapper/control.
func (s *session) happened(e ctl.Event) {
	switch e.Kind {
	case ctl.EventTable, ctl.EventRenamed, ctl.EventRemoved, ctl.EventsLost:
		s.controls.tell()
	}
}

// receivers is how many goroutines receive calls.
const receivers = 2

func (s *session) supervise(cfg Config) (code int, err error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, err
	}
	cmd, err := s.start(cfg)
	if err != nil {
		return 0, err
	}
	var serving sync.WaitGroup
	for range receivers {
		serving.Go(s.serve)
	}
	left := orphans{but: cfg.Daemon}
	stop := left.passSignals(cmd.Process)
	err = cmd.Wait()
	stop()
	if cfg.Wait {
		left.wait()
	} else {
		left.end()
	}
	serving.Wait()
	s.working.Wait()
	return exitCode(err), s.listener.Close()
}

// start starts the program and receives the listener from it.
func (s *session) start(cfg Config) (*exec.Cmd, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(pair[0])
	theirs := os.NewFile(uintptr(pair[1]), "supervisor")
	mode := "user"
	if cfg.AsRoot {
		mode = "root"
	}
	args := append(append(cfg.Starter[1:len(cfg.Starter):len(cfg.Starter)], mode), cfg.Command...)
	cmd := exec.Command(cfg.Starter[0], args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(os.Environ(), "DM_DISABLE_UDEV=1", NestedEnv+"="+s.root)
	runtime.LockOSThread() // see notify.Exec
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, err
	}
	if s.listener, err = notify.Accept(pair[0]); err != nil {
		return nil, startFailed(cmd.Wait(), err)
	}
	return cmd, nil
}

// startFailed is how a child ended that has reported why.
func startFailed(ended, err error) error {
	if code := exitCode(ended); code != 0 && errors.Is(err, notify.ErrNoListener) {
		return Reported(code)
	}
	return errors.Join(err, ended)
}

// starterSocket is the descriptor of the socket to the supervisor, in the child.
const starterSocket = 3

// Exec becomes the program, under the filter. It is for the child that Config.Starter
// starts, and returns only if that fails.
func Exec(args []string) error {
	if len(args) < 2 {
		return errors.New("this is for udm run")
	}
	path, err := exec.LookPath(args[1])
	if err != nil {
		return err
	}
	unix.CloseOnExec(starterSocket)
	return notify.Exec(filterOf(handlers(args[0] == "root")), starterSocket, path, args[1:], os.Environ())
}

// passSignals passes on what is meant to end the program. Those of the terminal it gets
// itself. Orphans that have ended are reaped.
func (o orphans) passSignals(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGCHLD)
	var g sync.WaitGroup
	g.Go(func() {
		for sig := range signals {
			switch sig {
			case syscall.SIGTERM, syscall.SIGHUP:
				_ = p.Signal(sig) // it has ended
			case syscall.SIGCHLD:
				o.reapEnded(p.Pid)
			}
		}
	})
	return func() {
		signal.Stop(signals)
		close(signals)
		g.Wait()
	}
}

func exitCode(err error) int {
	var x *exec.ExitError
	switch {
	case err == nil:
		return 0
	case !errors.As(err, &x):
		return CannotRun
	}
	if ws, ok := x.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return x.ExitCode()
}

// forgetDisks unregisters the disks that no device uses.
func (s *session) forgetDisks() {
	for _, d := range s.disks {
		if !s.devices.usedByTable(d.n) {
			_ = s.service.UnregisterDisk(context.Background(), ctl.Number(d.n)) // another run has done it
		}
	}
}
