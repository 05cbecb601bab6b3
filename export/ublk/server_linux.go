package ublk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

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
	ended  chan struct{} // closed when all queues have ended
}

// Serve starts to serve a device after [Control.Add] or [Control.Recover], until it is stopped
// or [Server.Leave] is called. The server then calls x.Done, also if Serve fails. The users of the
// device do not learn of the end of this process, so x must be one of [export.Lasting].
func Serve(c *Control, id uint32, x *export.Export, log *slog.Logger) (*Server, error) {
	s := &Server{log: log, export: x, legacy: c.legacy, ended: make(chan struct{})}
	if err := s.open(c, id); err != nil {
		x.Done()
		return nil, err
	}
	var ready, running sync.WaitGroup
	for i := range int(s.info.Queues) {
		s.queues = append(s.queues, newQueue(s, i))
	}
	for _, q := range s.queues {
		ready.Add(1)
		running.Go(func() { q.run(ready.Done) })
	}
	go func() {
		running.Wait()
		unix.Close(s.fd)
		s.export.Done()
		close(s.ended)
	}()
	ready.Wait()
	return s, s.began()
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

// began returns the error of queues that failed to start, and then stops the others.
func (s *Server) began() error {
	var errs []error
	for _, q := range s.queues {
		errs = append(errs, q.failed)
	}
	err := errors.Join(errs...)
	if err != nil {
		s.Leave()
	}
	return err
}

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
