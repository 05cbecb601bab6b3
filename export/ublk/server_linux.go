package ublk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"udm/export"
)

// Server serves the requests of a block device.
type Server struct {
	log    *slog.Logger
	export *export.Export
	info   Info
	legacy bool
	fd     int // of /dev/ublkcN
	queues []*queue
	loses  bool          // the driver is older than Linux 6.16: see queue.calm
	up     atomic.Bool   // see Up
	ended  chan struct{} // closed when all queues have ended

	serving sync.WaitGroup // queues that answer requests
}

// Serve starts to serve a device after [Control.Add] or [Control.Recover], until it is stopped
// or [Server.Leave] is called. The server then calls x.Done, also if Serve fails. The users of the
// device do not learn of the end of this process, so x must be one of [export.Lasting].
func Serve(c *Control, id uint32, x *export.Export, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, export: x, legacy: c.legacy, loses: c.features&flagResize == 0, ended: make(chan struct{})}
	if err := s.open(c, id); err != nil {
		x.Done()
		return nil, err
	}
	var opened, ready, running sync.WaitGroup
	for i := range int(s.info.Queues) {
		s.queues = append(s.queues, newQueue(s, i))
	}
	opened.Add(len(s.queues))
	s.serving.Add(len(s.queues))
	ready.Add(len(s.queues))
	for _, q := range s.queues {
		running.Go(func() { q.run(&opened, ready.Done) })
	}
	go func() {
		running.Wait()
		unix.Close(s.fd)
		s.export.Done()
		close(s.ended)
	}()
	ready.Wait()
	if err := s.failed(); err != nil {
		s.Leave()
		return nil, err
	}
	return s, nil
}

func (s *Server) open(c *Control, id uint32) (err error) {
	if s.info, err = c.Info(id); err != nil {
		return err
	}
	path := fmt.Sprint("/dev/ublkc", id)
	if s.fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return nil
}

// failed returns the errors of queues that could not be opened.
func (s *Server) failed() error {
	var errs []error
	for _, q := range s.queues {
		errs = append(errs, q.failed)
	}
	return errors.Join(errs...)
}

// Up tells the server that [Control.Start] or [Control.Recovered] has succeeded. Until then it leaves
// when the driver aborts a command.
func (s *Server) Up() { s.up.Store(true) }

// Leave stops the server and waits until its bios have ended. The block device remains, and
// its requests wait for the next server.
func (s *Server) Leave() {
	s.leave()
	<-s.ended
}

func (s *Server) leave() {
	for _, q := range s.queues {
		q.leave()
	}
}

// Ended returns a channel that is closed when the server has ended.
func (s *Server) Ended() <-chan struct{} { return s.ended }
