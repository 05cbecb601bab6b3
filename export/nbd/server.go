package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"udm/env"
	"udm/export"
)

// Config configures a server. Only Exports is required.
type Config struct {
	Exports Exports
	TLS     TLS

	// Grow lets connections use the space that a device has gained since they
	// attached. The protocol cannot report the new size to them, but package
	// kernel can.
	Grow bool
	// MaxConns limits the connections; further ones are closed at once. 0: 8192.
	MaxConns int
	// HandshakeTimeout limits the time until a client has chosen an export, TLS
	// included, or has got an answer about one. 0: 30 seconds.
	HandshakeTimeout time.Duration
	// StallTimeout ends a connection whose client stops in the middle of a
	// request or takes no replies. Between requests a client may be silent
	// for ever. 0: 10 minutes.
	StallTimeout time.Duration

	// Env waits for the bios of requests that need several. nil: env.Real().
	Env env.Env
	// Log receives one line for each connection that ends with an error, and one when
	// MaxConns is reached. nil: no log.
	Log *slog.Logger
}

// DefaultMaxConns is the default of Config.MaxConns. On Linux each busy connection has a
// thread, and a Go program has at most 10,000 threads by default.
const DefaultMaxConns = 8192

// ErrClosed is what Serve returns after Shutdown or Close.
var ErrClosed = errors.New("nbd: server closed")

// Server serves exports to NBD clients. All methods are safe for concurrent use.
type Server struct {
	cfg    Config
	memory memory
	poller poller

	mu        sync.Mutex
	closing   bool                  // guarded by mu; no new listeners and connections
	settling  bool                  // guarded by mu; no new listeners: see Settle
	accepting int                   // guarded by mu; Serve calls
	listeners map[net.Listener]bool // guarded by mu
	conns     map[*conn]bool        // guarded by mu
	moved     []Moved               // guarded by mu; see Hand
	left      sync.Cond             // mu; a Serve call has ended
	fullTold  bool                  // guarded by mu; a refusal was logged since a client last left
	running   sync.WaitGroup        // Serve calls and connections, added to under mu; and the poller, beside a connection
}

// New makes a server. It fails only for a configuration that cannot work.
func New(cfg Config) (*Server, error) {
	if cfg.Exports == nil {
		return nil, errors.New("nbd: no exports")
	}
	if err := cfg.TLS.check(); err != nil {
		return nil, err
	}
	setDefault(&cfg.MaxConns, DefaultMaxConns)
	setDefault(&cfg.HandshakeTimeout, 30*time.Second)
	setDefault(&cfg.StallTimeout, 10*time.Minute)
	if cfg.Env == nil {
		cfg.Env = env.Real()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, listeners: make(map[net.Listener]bool), conns: make(map[*conn]bool)}
	s.left.L, s.poller.running = &s.mu, &s.running
	return s, nil
}

func setDefault[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Serve accepts connections from l until the server is closed, when it returns
// ErrClosed, or l fails. It closes l. TCP and Unix sockets are served fastest.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if !s.addListener(l) {
		return ErrClosed
	}
	defer s.running.Done()
	defer s.acceptsNoMore()
	for {
		nc, err := l.Accept()
		if err != nil {
			return s.acceptFailed(l, err)
		}
		s.start(nc)
	}
}

func (s *Server) addListener(l net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || s.settling {
		return false
	}
	s.listeners[l] = true
	s.accepting++
	s.running.Add(1)
	return true
}

func (s *Server) acceptsNoMore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepting--
	s.left.Broadcast()
}

func (s *Server) acceptFailed(l net.Listener, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.closing || s.settling {
		return ErrClosed
	}
	return err
}

// start serves nc on a goroutine of its own, or closes it.
func (s *Server) start(nc net.Conn) {
	c, err := s.add(nc)
	if err != nil {
		if s.worthTelling(err) {
			s.cfg.Log.Warn("nbd client refused", "client", nc.RemoteAddr(), "reason", err)
		}
		nc.Close()
		return
	}
	go func() {
		defer s.remove(c)
		if err := c.run(); err != nil && err != ErrMoved {
			s.cfg.Log.Warn("nbd client dropped", "client", nc.RemoteAddr(), "reason", err)
		}
	}()
}

// ServeConn serves one connection until it ends and closes it if it can be closed. It
// accepts any stream of bytes, so that a recorded session can be replayed without a
// socket; time limits require the deadlines of a [net.Conn], and Close requires a
// stream that can be closed. The error says why the connection ended: nil if the
// client disconnected, or closed the connection between two requests, and ErrMoved if
// Hand took it.
func (s *Server) ServeConn(rw io.ReadWriter) error {
	c, err := s.add(rw)
	if err != nil {
		return err
	}
	defer s.remove(c)
	return c.run()
}

func (s *Server) add(rw io.ReadWriter) (*conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, ErrClosed
	}
	if len(s.conns) >= s.cfg.MaxConns {
		return nil, &fullError{s.cfg.MaxConns}
	}
	c := newConn(s, rw)
	s.conns[c] = true
	s.running.Add(1)
	return c, nil
}

// fullError is the error of a connection over the limit.
type fullError struct{ limit int }

func (e *fullError) Error() string {
	return fmt.Sprintf("nbd: %d clients are connected, which is the limit; further ones are refused until one leaves", e.limit)
}

// worthTelling is false for repeated refusals for the same reason: a refused client
// may retry at once, and for ever.
func (s *Server) worthTelling(refused error) bool {
	var full *fullError
	if !errors.As(refused, &full) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.fullTold
	s.fullTold = true
	return !told
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	s.leftLocked(c)
	s.fullTold = false
	s.mu.Unlock()
	s.running.Done()
}

// Conns is the number of connections, including those in the handshake.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Clients lists the connected clients, in no particular order.
func (s *Server) Clients() []export.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]export.Client, 0, len(s.conns))
	for c := range s.conns {
		list = append(list, c.client())
	}
	return list
}

// client describes the connection's client.
func (c *conn) client() (who export.Client) {
	if nc, ok := c.base.(net.Conn); ok && nc.RemoteAddr() != nil {
		who.Address = nc.RemoteAddr().String()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wire != nil { // the session no longer changes
		who.Export, who.ReadOnly, who.Stalled = c.export.Name, c.readOnly, c.stalled()
	}
	return who
}

// Shutdown ends the server gracefully. It accepts no new connections, finishes
// and answers the requests in flight, refuses new requests with ESHUTDOWN, and
// closes each connection once it is idle. If ctx ends first it cuts the remaining
// connections as Close does and returns ctx's error. A device that does not
// complete its bios, such as a suspended one, delays even that.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop((*conn).shutdown)
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.stop((*conn).abort)
		<-done
		return ctx.Err()
	}
}

// Close cuts every connection and waits until all of their bios have ended and
// all goroutines of the server are gone.
func (s *Server) Close() error {
	s.stop((*conn).abort)
	s.running.Wait()
	return nil
}

// stop closes the listeners and applies end to every connection.
func (s *Server) stop(end func(*conn)) {
	s.mu.Lock()
	s.closing = true
	listeners, conns := s.takeListenersLocked(), make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for l := range listeners {
		l.Close()
	}
	for _, c := range conns {
		end(c)
	}
}

func (s *Server) takeListenersLocked() map[net.Listener]bool {
	list := s.listeners
	s.listeners = make(map[net.Listener]bool)
	return list
}
