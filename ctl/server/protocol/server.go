package protocol

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"udm/ctl"
)

// Server is the front end of the control protocol. Draining it interrupts commands
// that wait.
type Server struct {
	listen func() (net.Listener, error)
	http   http.Server
	stop   context.CancelFunc
	served chan struct{} // closed when the last request is answered

	mu      sync.Mutex
	address string            // guarded by mu
	conns   map[net.Conn]bool // guarded by mu
}

// NewServer returns a front end that serves commands on the socket opened by listen.
func NewServer(s ctl.Service, listen func() (net.Listener, error), log *slog.Logger) *Server {
	ctx, stop := context.WithCancel(context.Background())
	p := &Server{listen: listen, stop: stop, served: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.http = http.Server{Handler: Handler(s, log), BaseContext: func(net.Listener) context.Context { return ctx }, ConnState: p.note,
		ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return p
}

// Name implements frontend.Server.
func (p *Server) Name() string { return "control" }

// Start implements frontend.Server.
func (p *Server) Start(fail func(error)) error {
	l, err := p.listen()
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.address = l.Addr().String()
	p.mu.Unlock()
	go func() {
		defer close(p.served)
		if err := p.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			fail(err)
		}
	}()
	return nil
}

func (p *Server) note(c net.Conn, now http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch now {
	case http.StateNew:
		p.conns[c] = true
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, c)
	}
}

// Status implements frontend.Server.
func (p *Server) Status() ctl.FrontEnd {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := ctl.FrontEnd{Name: p.Name(), Addresses: []string{p.address}}
	for c := range p.conns {
		out.Clients = append(out.Clients, ctl.FrontEndClient{Address: c.RemoteAddr().String()})
	}
	return out
}

// Drain implements frontend.Server.
func (p *Server) Drain(ctx context.Context) error {
	p.stop()
	err := p.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.http.Close())
	}
	<-p.served
	return err
}

// Close implements frontend.Server.
func (p *Server) Close() error {
	p.stop()
	err := p.http.Close()
	<-p.served
	return err
}
