package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"udm/ctl/server/service"
	"udm/dm"
)

// Config is how a daemon runs.
type Config struct {
	Root     string      // directory of the sockets and the saved state; made if missing
	Program  string      // version to report
	Listen   string      // TCP address for NBD clients; "" for none
	TLS      *tls.Config // of Listen; nil for none
	ReadOnly bool        // refuse writes of all NBD clients
	MaxConns int         // NBD connections; 0: 1024
	Mount    string      // directory to show the devices in as files; "" for none
	Types    []*dm.Type
	Log      *slog.Logger
	// Helper is a command that calls attach.Helper; without one nothing can be
	// attached as a block device.
	Helper []string
	// Drain is how long NBD clients may take to finish when the daemon ends; 0:
	// 10 seconds.
	Drain time.Duration
	// Ready, if any, is called once clients can connect.
	Ready func(*service.Service)
}

// Run runs a daemon until ctx ends: then it stops taking commands, lets NBD
// requests that are under way finish, flushes every device and closes its disks.
func Run(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return err
	}
	lock, err := lockRoot(cfg.Root)
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := service.New(service.Config{Root: cfg.Root, Program: cfg.Program, Types: cfg.Types, Log: cfg.Log, Helper: cfg.Helper})
	if err != nil {
		return err
	}
	if err := s.Restore(ctx); err != nil {
		cfg.Log.Error("some of the saved state cannot be used", "reason", err)
	}
	err = serve(ctx, s, cfg)
	return errors.Join(err, s.Close())
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
		return nil, fmt.Errorf("a daemon runs at %s already (process %s); stop it or choose another --root", root, strings.TrimSpace(string(pid)))
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
	if err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if err := s.FrontEnd.Start(fail, list...); err != nil {
		return err
	}
	for _, f := range s.FrontEnd.Status() {
		cfg.Log.Info("serving", "front_end", f.Name, "addresses", strings.Join(f.Addresses, " "))
	}
	if cfg.Ready != nil {
		cfg.Ready(s)
	}
	retry(ctx, s)
	drain(s, cfg)
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

// drain ends the front ends. What waits in a suspended device at the end of the time
// would wait for ever: its client has no answer yet, so it may be failed.
func drain(s *service.Service, cfg Config) {
	if cfg.Drain == 0 {
		cfg.Drain = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(context.Background(), cfg.Drain)
	defer cancel()
	var done sync.WaitGroup
	ended := make(chan struct{})
	done.Go(func() {
		defer close(ended)
		if err := s.FrontEnd.Drain(ctx); err != nil {
			cfg.Log.Warn("clients were cut off", "reason", strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	})
	select {
	case <-ended:
	case <-ctx.Done():
		s.FailSuspended()
	}
	done.Wait()
}
