package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"udm/ctl/server/systemd"
)

// openLog opens a daemon's log file, and opens it again at each SIGHUP, as programs
// that rotate logs expect. Without a path the log is standard error, and SIGHUP ends
// the daemon when its terminal closes, but not under a service manager, which sends
// SIGHUP to units without a command of their own for a reload.
//
// The daemon may outlive the readers of its standard error. SIGPIPE would end it then, and
// leave its mounts behind.
func openLog(path string) (log io.Writer, done func(), err error) {
	signal.Ignore(syscall.SIGPIPE)
	if path == "" && os.Getenv("NOTIFY_SOCKET") == "" {
		return os.Stderr, func() {}, nil
	}
	l := &logFile{path: path, file: os.Stderr}
	if err := l.reopen(); err != nil {
		return nil, nil, err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	var all sync.WaitGroup
	all.Go(func() {
		for range hangups {
			err := errors.Join(systemd.Notify(systemd.Reloading), l.reopen())
			if err = errors.Join(err, systemd.Notify(systemd.Ready)); err != nil {
				fmt.Fprintln(l, "the log may stay in the old file:", err)
			}
		}
	})
	return l, func() {
		signal.Stop(hangups)
		close(hangups)
		all.Wait()
		l.close()
	}, nil
}

// logFile is a log file that can be reopened; without a path it is standard error.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File // guarded by mu
}

func (l *logFile) reopen() error {
	if l.path == "" {
		return nil
	}
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.close()
	l.file = f
	return nil
}

func (l *logFile) close() {
	if l.file != os.Stderr {
		l.file.Close()
	}
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

// ownDaemonEnv is set in the environment of the daemon of one command.
const ownDaemonEnv = "UDM_OWN_DAEMON"

// secondSignal returns a channel that is closed at the second signal to stop. It
// watches as long as the process lives. For the daemon of one command it is nil: when the
// command is killed, the kernel sends a signal for several of its threads.
func secondSignal() <-chan struct{} {
	if os.Getenv(ownDaemonEnv) != "" {
		return nil
	}
	signals, second := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		<-signals
		close(second)
	}()
	return second
}
