package nbddev

import (
	"context"
	"errors"
	"io"
	"sync"

	"udm/blk/nbdclient"
)

// session is the connections made at one time, until one of them breaks.
type session struct {
	ctx     context.Context
	cancel  context.CancelFunc
	clients []*nbdclient.Client // set before bios use it; the first one replays

	mu      sync.Mutex
	conns   []io.Closer // guarded by mu
	stopped bool        // guarded by mu
}

func newSession() *session {
	s := &session{}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

var errStopped = errors.New("the server did not answer in time")

// dial makes a connection that stop can break at any moment.
func (s *session) dial(d Dialer) (io.ReadWriteCloser, error) {
	rw, err := d(s.ctx)
	if err != nil {
		if s.over() {
			err = errStopped
		}
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		rw.Close()
		return nil, errStopped
	}
	s.conns = append(s.conns, rw)
	return rw, nil
}

func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// stop breaks all connections. Their bios end with Offline. It does not wait.
func (s *session) stop() {
	s.cancel()
	s.mu.Lock()
	conns := s.conns
	s.stopped = true
	s.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}

// close waits until the goroutines of all connections have ended. All bios must have
// ended.
func (s *session) close() {
	for _, c := range s.clients {
		c.Close()
	}
	s.stop()
}
