package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"udm/ctl/server/service"
	"udm/dm"
	"udm/env/hostfs"
	"udm/volume"
)

// Config configures a daemon.
type Config struct {
	Root     string      // directory of the sockets and the saved state; created if missing
	Program  string      // version to report
	Listen   string      // TCP address for NBD clients; "" for none
	TLS      *tls.Config // for Listen; nil for none
	ReadOnly bool        // all NBD clients are read-only
	MaxConns int         // NBD connections; 0: nbd.DefaultMaxConns
	Metrics  string      // address to serve metrics on, HOST:PORT or unix:PATH; "" for none
	Mount    string      // directory in which to show the devices as files; "" for none
	Types    []*dm.Type
	Log      *slog.Logger
	// Helper is a command that calls attach.Helper; without it nothing can be
	// attached as a block device.
	Helper []string
	// Drain is the time that stopping may take; 0: 10 seconds. Clients get most of it
	// to finish.
	Drain time.Duration
	// Hurry, if not nil, is closed when the daemon must stop without waiting.
	Hurry <-chan struct{}
	// Sockets are listeners opened by a service manager, by names of front ends:
	// control, nbd, nbd-tcp. Missing ones are opened here.
	Sockets map[string]net.Listener
	// Ready, if not nil, is called once clients can connect; Ending when the daemon
	// starts to stop.
	Ready  func(*service.Service)
	Ending func()
	// FS is the file system of Root, Files that of volumes; nil: the machine's.
	FS    hostfs.FS
	Files volume.Files
}

// Run runs a daemon until ctx ends. Then it accepts no more commands, lets NBD
// requests in progress finish, flushes every device and closes its disks. What does
// not end in time is abandoned, which the log and the error report; the process must
// then exit.
func Run(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return err
	}
	lock, err := lockRoot(cfg.Root)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := service.New(service.Config{Root: cfg.Root, Program: cfg.Program, Types: cfg.Types, Log: cfg.Log,
		Helper: cfg.Helper, FS: cfg.FS, Files: cfg.Files})
	if err != nil {
		return err
	}
	err = serve(ctx, s, cfg)
	if cfg.Ending != nil {
		cfg.Ending()
	}
	return errors.Join(err, end(s, cfg))
}

// lockRoot takes the lock of a root, which only one daemon can hold.
func lockRoot(root string) (io.Closer, error) {
	path := filepath.Join(root, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if lockFile(f) != nil {
		pid, _ := io.ReadAll(f)
		f.Close()
		return nil, fmt.Errorf("a daemon is already running at %s (process %s); stop it or choose another --root", root, strings.TrimSpace(string(pid)))
	}
	if err := f.Truncate(0); err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(f, os.Getpid())
	return f, err
}

// serve runs the front ends until ctx ends or one of them fails.
func serve(ctx context.Context, s *service.Service, cfg Config) error {
	list, err := frontEnds(s, cfg)
	if err == nil {
		err = checkSockets(cfg.Sockets, list)
	}
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := s.FrontEnd.Start(fail, list[0]); err != nil {
		return err
	}
	if err := s.Restore(ctx); err != nil {
		cfg.Log.Error("some saved state cannot be used", "reason", err)
	}
	if err := s.FrontEnd.Start(fail, list[1:]...); err != nil {
		return err
	}
	for _, f := range s.FrontEnd.Status() {
		cfg.Log.Info("serving", "front_end", f.Name, "addresses", strings.Join(f.Addresses, " "))
	}
	if cfg.Ready != nil {
		cfg.Ready(s)
	}
	retry(ctx, s)
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// retryEvery is the interval at which missing devices are retried after a restart.
const retryEvery = 5 * time.Second

// retry retries until ctx ends.
func retry(ctx context.Context, s *service.Service) {
	t := time.NewTicker(retryEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.Retry(ctx)
		}
	}
}
