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
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"udm/ctl/server/frontend"
	"udm/ctl/server/handover"
	"udm/ctl/server/metrics"
	"udm/ctl/server/service"
	"udm/ctl/server/web"
	"udm/dm"
	"udm/env/hostfs"
	"udm/targets/crypt"
	"udm/volume"
)

// Config configures a daemon.
type Config struct {
	Root     string      // directory of the sockets and the saved state; created if missing
	Program  string      // version to report
	Listen   string      // TCP address for NBD clients; "" for none
	TLS      *tls.Config // for Listen and Receive; nil for none
	Receive  string      // TCP address for streams from other daemons; "" for none, needs TLS with certificates of clients
	ReadOnly bool        // all NBD clients are read-only
	MaxConns int         // NBD connections; 0: nbd.DefaultMaxConns
	Metrics  string      // address to serve metrics on, HOST:PORT or unix:PATH; "" for none
	Web      string      // TCP address to serve the page for people on; "" for none
	// WebOperations allows the page to change devices. Machine, if not nil, examines the
	// machine for what it lacks, which the page shows.
	WebOperations bool
	Machine       func() []web.Check
	Mount         string // directory in which to show the devices as files; "" for none
	Types         []*dm.Type
	Keys          *crypt.Ring // the key store of Types
	Log           *slog.Logger
	// Helper is a command that calls attach.Helper; without it nothing can be
	// attached as a block device.
	Helper []string
	// Drain is the time that stopping may take; 0: 10 seconds. Clients get most of it
	// to finish.
	Drain time.Duration
	slack time.Duration // more for closing what was cut off, in tests on busy machines
	// Hurry, if not nil, is closed when the daemon must stop without waiting.
	Hurry <-chan struct{}
	// Sockets are listeners opened by a service manager, by names of front ends:
	// control, nbd, nbd-tcp. Missing ones are opened here.
	Sockets map[string]net.Listener
	// Ready, if not nil, is called once clients can connect; Ending when the daemon
	// starts to stop.
	Ready  func(*service.Service)
	Ending func()
	// Successor returns the command of a process that calls Run to take over, by a program
	// or, if that is "", by this one; nil: the daemon cannot be replaced.
	Successor func(program string) *exec.Cmd
	// Predecessor is the process that this one takes over from; nil: none.
	Predecessor *handover.Predecessor
	// HandedOver, if not nil, is called with the id of the next process before that may
	// serve.
	HandedOver func(pid int)
	// Step, if not nil, is called after each step of a handover, for tests.
	Step   func(name string)
	atOnce int // service.Config.AtOnce, for tests
	// FS is the file system of Root, Files that of volumes; nil: the machine's.
	FS    hostfs.FS
	Files volume.Files
}

// Run runs a daemon until ctx ends. Then it accepts no more commands, lets NBD
// requests in progress finish, flushes every device and closes its disks. What does
// not end in time is abandoned, which the log and the error report; the process must
// then exit. It also returns once another process has taken over: see package handover.
func Run(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return err
	}
	problems, err := metrics.NewWatch(cfg.Log)
	if err != nil {
		return err
	}
	d := &daemon{cfg: cfg, problems: problems, asks: make(chan ask)}
	for name := range cfg.Sockets {
		d.managed = append(d.managed, name)
	}
	if err := d.inherit(); err != nil {
		return err
	}
	defer func() { d.lock.Close() }()
	var left []*handover.Bundle
	for {
		if left, err = d.live(ctx, left); !errors.Is(err, errAgain) {
			return err
		}
	}
}

// daemon is the daemon of a root.
type daemon struct {
	cfg      Config
	problems *metrics.Watch
	lock     *os.File
	asks     chan ask
	// managed are the names of the sockets that a service manager has opened, for this
	// process or one before.
	managed []string
	old     *handover.Predecessor // the process that this one takes over from, until it has
	// failed is why another process has not taken over, to be told once this one serves
	// again.
	failed *ask
	linger []func() // return when clients that this process relays to have left
}

// live runs a service until ctx ends, or until it is handed over. errAgain: another one is to
// be made, of what is left if the next process has not taken that.
func (d *daemon) live(ctx context.Context, from []*handover.Bundle) (left []*handover.Bundle, err error) {
	s, err := service.New(service.Config{Root: d.cfg.Root, Program: d.cfg.Program, Types: d.cfg.Types, Keys: d.cfg.Keys, Log: d.cfg.Log,
		Helper: d.cfg.Helper, FS: d.cfg.FS, Files: d.cfg.Files, AtOnce: d.cfg.atOnce})
	if err != nil {
		return nil, d.refuse(err)
	}
	left, err = d.serve(ctx, s, from)
	switch {
	case errors.Is(err, errAgain):
		return left, err
	case errors.Is(err, errHandedOver):
		d.afterwards(ctx)
		return nil, nil
	}
	if d.old != nil {
		return nil, d.refuse(err) // which ends this process
	}
	if d.cfg.Ending != nil {
		d.cfg.Ending()
	}
	return nil, errors.Join(err, end(s, d.cfg))
}

// serve runs the front ends until ctx ends or one of them fails.
func (d *daemon) serve(ctx context.Context, s *service.Service, from []*handover.Bundle) (left []*handover.Bundle, err error) {
	list, err := d.frontEnds(s)
	if err != nil {
		return nil, err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if from != nil || d.old != nil {
		err = d.takeOver(ctx, s, list, from, fail)
	} else {
		err = d.start(ctx, s, list, fail)
	}
	if err != nil {
		return nil, err
	}
	for _, f := range s.FrontEnd.Status() {
		d.cfg.Log.Info("serving", "front_end", f.Name, "addresses", strings.Join(f.Addresses, " "))
	}
	if d.cfg.Ready != nil {
		d.cfg.Ready(s)
	}
	d.tellFailure()
	watched := d.watch(ctx, s)
	defer func() {
		fail(nil)
		watched()
	}()
	if left, err = d.run(ctx, s, list, fail); err != nil {
		return left, err
	}
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return nil, nil
}

func (d *daemon) frontEnds(s *service.Service) ([]frontend.Server, error) {
	list, err := d.newFrontEnds(s)
	if err == nil {
		err = checkSockets(d.cfg.Sockets, list)
	}
	return list, err
}

// start restores the devices and starts the front ends.
func (d *daemon) start(ctx context.Context, s *service.Service, list []frontend.Server, fail func(error)) error {
	if err := s.FrontEnd.Start(fail, list[0]); err != nil {
		return err
	}
	if err := s.Restore(ctx); err != nil {
		d.cfg.Log.Error("some saved state cannot be used", "reason", err)
	}
	if err := takeKept(s, d.cfg.Root); err != nil {
		d.cfg.Log.Error("what was in use before the restart gets errors", "reason", oneLine(err))
	}
	return s.FrontEnd.Start(fail, list[1:]...)
}

// takeKept takes what a daemon before has given to a keeper.
func takeKept(s *service.Service, root string) error {
	b, err := handover.TakeKept(root)
	if b == nil {
		return err
	}
	defer b.Close()
	return s.Kernel().TakeKept(b)
}

// lockRoot takes the lock of a root, which only one daemon can hold.
func lockRoot(root string) (*os.File, error) {
	path := filepath.Join(root, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if lockFile(f) != nil {
		text, _ := io.ReadAll(f)
		f.Close()
		pid, _, _ := strings.Cut(string(text), "\n")
		return nil, fmt.Errorf("a daemon is already running at %s (process %s); stop it or choose another --root", root, pid)
	}
	return f, signLock(f)
}

// signLock writes who has the lock, in the first line. It frees no block of the file first: a file system may wait for
// the disk to discard it, and clients wait for a process that takes over.
func signLock(f *os.File) error {
	line := fmt.Appendln(nil, os.Getpid())
	_, err := f.WriteAt(line, 0)
	return errors.Join(err, f.Truncate(int64(len(line))))
}

// retryEvery is the interval at which missing devices are retried after a restart.
const retryEvery = 5 * time.Second

// run retries what is missing, and hands over when asked, until ctx ends.
func (d *daemon) run(ctx context.Context, s *service.Service, list []frontend.Server, fail func(error)) (left []*handover.Bundle, err error) {
	t := time.NewTicker(retryEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-t.C:
			s.Retry(ctx)
		case a := <-d.asks:
			if left, list, err = d.handOver(ctx, s, list, a, fail); err != nil {
				return left, err
			}
		}
	}
}
