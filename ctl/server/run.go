package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"udm/ctl"
	"udm/dm"
	"udm/env"
	"udm/export/nbd"

	"udm/blk"
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
	// Helper is a command that calls [Helper]; without one nothing can be
	// attached as a block device.
	Helper []string
	// Drain is how long NBD clients may take to finish when the daemon ends; 0:
	// 10 seconds.
	Drain time.Duration
	// Ready, if any, is called once clients can connect.
	Ready func(*Server)
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
	s, err := New(cfg.Root, cfg.Program, cfg.Log, cfg.Types)
	if err != nil {
		return err
	}
	if err := s.Restore(ctx); err != nil {
		cfg.Log.Error("some of the saved state cannot be used", "reason", err)
	}
	err = s.serve(ctx, cfg)
	return errors.Join(err, s.close())
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

// serve opens the sockets and answers until ctx ends or one of them fails.
func (s *Server) serve(ctx context.Context, cfg Config) error {
	local, remote, err := s.nbdServers(cfg)
	if err != nil {
		return err
	}
	listeners, err := s.listen(cfg)
	if err != nil {
		return err
	}
	if err := s.files.start(cfg.Mount, cfg.Helper); err != nil {
		s.files.stop()
		return errors.Join(err, listeners.Close())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	web := &http.Server{Handler: s.Handler(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn)}
	var g group
	g.start(cancel, func() error { return web.Serve(listeners.control) })
	g.start(cancel, func() error { return local.Serve(listeners.nbd) })
	if listeners.tcp != nil {
		g.start(cancel, func() error { return remote.Serve(listeners.tcp) })
	}
	g.start(cancel, func() error { s.KeepTrying(ctx); return nil })
	if listeners.tcp != nil {
		cfg.Log.Info("listening", "nbd", listeners.tcp.Addr(), "tls", cfg.TLS != nil)
	}
	if cfg.Ready != nil {
		cfg.Ready(s)
	}
	<-ctx.Done()
	if cfg.Drain == 0 {
		cfg.Drain = 10 * time.Second
	}
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), cfg.Drain)
	defer cancelStop()
	if web.Shutdown(stop) != nil {
		err = web.Close()
	}
	s.drain(stop, local, remote)
	return errors.Join(err, g.wait())
}

// drain ends the NBD servers and the mounts. What waits in a suspended device at the end of the
// time would wait for ever: its client has no answer yet, so it may be failed.
func (s *Server) drain(ctx context.Context, servers ...*nbd.Server) {
	var done sync.WaitGroup
	for _, n := range servers {
		done.Go(func() { _ = n.Shutdown(ctx) }) // says only that clients were cut off
	}
	done.Go(s.files.stop)
	ended := make(chan struct{})
	go func() { done.Wait(); close(ended) }()
	select {
	case <-ended:
		return
	case <-ctx.Done():
	}
	for _, d := range s.control.List() {
		if st := d.Status(); st.Suspended {
			s.failAll(d, max(st.Sectors, 1))
		}
	}
	<-ended
}

// failAll lets the I/O that waits in a suspended device end in errors. Nothing
// of it is saved.
func (s *Server) failAll(d *dm.Device, sectors uint64) {
	err := d.Load([]dm.Spec{{Len: sectors, Type: "error"}}, dm.Mode{Write: true})
	if err == nil {
		err = d.Resume(context.Background(), true)
	}
	if err != nil {
		s.log.Error("I/O that waits in a suspended device cannot be ended", "device", d.Name(), "reason", err)
	}
}

type listeners struct{ control, nbd, tcp net.Listener }

func (l listeners) Close() error {
	errs := []error{l.control.Close(), l.nbd.Close()}
	if l.tcp != nil {
		errs = append(errs, l.tcp.Close())
	}
	return errors.Join(errs...)
}

func (s *Server) listen(cfg Config) (l listeners, err error) {
	if l.control, err = listenUnix(filepath.Join(cfg.Root, ctl.Socket)); err != nil {
		return l, err
	}
	if l.nbd, err = listenUnix(filepath.Join(cfg.Root, ctl.NBDSocket)); err != nil {
		l.control.Close()
		return l, err
	}
	if cfg.Listen == "" {
		return l, nil
	}
	if l.tcp, err = net.Listen("tcp", cfg.Listen); err != nil {
		l.control.Close()
		l.nbd.Close()
	}
	return l, err
}

// listenUnix makes a socket for its owner only, in place of one that a killed
// daemon has left.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%s is too long for a socket (%d bytes, at most %d); choose a shorter --root", path, len(path), maxSocketPath)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// maxSocketPath is how long the path of a Unix socket may be on the strictest
// system.
const maxSocketPath = 103

// nbdServers makes the server of the Unix socket and that of TCP, which differ
// in their encryption.
func (s *Server) nbdServers(cfg Config) (local, remote *nbd.Server, err error) {
	c := nbd.Config{Exports: exports{s, cfg.ReadOnly}, MaxConns: cfg.MaxConns, Log: cfg.Log}
	if local, err = nbd.New(c); err != nil {
		return nil, nil, err
	}
	if cfg.TLS != nil {
		c.TLS = nbd.TLS{Mode: nbd.TLSRequire, Config: cfg.TLS}
	}
	remote, err = nbd.New(c)
	return local, remote, err
}

// close flushes every device and takes the stacks down, the saved state excepted.
func (s *Server) close() error {
	var errs []error
	for _, d := range s.control.List() {
		if st := d.Status(); st.Live && !st.Suspended {
			if err := blk.FlushDevice(env.Real(), d); err != nil {
				errs = append(errs, fmt.Errorf("flushing %s: %w", st.Name, err))
			}
		}
	}
	return errors.Join(append(errs, s.control.Close())...)
}

// group runs functions until the first of them ends, and collects their errors.
type group struct {
	running sync.WaitGroup
	mu      sync.Mutex
	err     error // guarded by mu
}

func (g *group) start(stop func(), f func() error) {
	g.running.Go(func() {
		defer stop()
		if err := f(); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, nbd.ErrClosed) {
			g.mu.Lock()
			g.err = errors.Join(g.err, err)
			g.mu.Unlock()
		}
	})
}

func (g *group) wait() error {
	g.running.Wait()
	return g.err
}
