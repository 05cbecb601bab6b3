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

// openLog opens the file of a daemon's log, anew at each SIGHUP, as programs that
// rotate logs expect. Without a path it is standard error.
func openLog(path string) (log io.Writer, done func(), err error) {
	if path == "" {
		return os.Stderr, func() {}, nil
	}
	l := &logFile{path: path}
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
		l.file.Close()
	}, nil
}

// logFile is a file that is opened again.
type logFile struct {
	path string
	mu   sync.Mutex
	file *os.File // guarded by mu
}

func (l *logFile) reopen() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		l.file.Close()
	}
	l.file = f
	return nil
}

func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file.Write(p)
}

// secondSignal is closed at the second signal that ends a daemon. It watches for as
// long as the process lives.
func secondSignal() <-chan struct{} {
	signals, second := make(chan os.Signal, 2), make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		<-signals
		close(second)
	}()
	return second
}
