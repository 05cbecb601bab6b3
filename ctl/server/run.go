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

// Config is how a daemon runs.
type Config struct {
	Root     string      // directory of the sockets and the saved state; made if missing
	Program  string      // version to report
	Listen   string      // TCP address for NBD clients; "" for none
	TLS      *tls.Config // of Listen; nil for none
	ReadOnly bool        // refuse writes of all NBD clients
	MaxConns int         // NBD connections; 0: nbd.DefaultMaxConns
	Mount    string      // directory to show the devices in as files; "" for none
	Types    []*dm.Type
	Log      *slog.Logger
	// Helper is a command that calls attach.Helper; without one nothing can be
	// attached as a block device.
	Helper []string
	// Drain is how long all may take when the daemon ends; 0: 10 seconds. Clients
	// have most of it to finish.
	Drain time.Duration
	// Hurry, if any, is closed when the daemon is to wait for nobody any more.
	Hurry <-chan struct{}
	// Sockets are listeners that a service manager has opened, by the names of
	// front ends: control, nbd, nbd-tcp. What is missing is opened here.
	Sockets map[string]net.Listener
	// Ready, if any, is called once clients can connect, Ending when the daemon
	// begins to end.
	Ready  func(*service.Service)
	Ending func()
	// FS is what Root is in, and Files are the files of volumes; nil: the machine's.
	FS    hostfs.FS
	Files volume.Files
}

// Run runs a daemon until ctx ends: then it stops taking commands, lets NBD
// requests that are under way finish, flushes every device and closes its disks.
// What does not end in time is given up, which the log and the error say: the
// process has to end then.
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

// lockRoot takes the lock that only one daemon of a root can have.
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
		cfg.Log.Error("some of the saved state cannot be used", "reason", err)
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

// retryEvery is how often what is missing since a restart is tried again.
const retryEvery = 5 * time.Second

// retry tries it until ctx ends.
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
