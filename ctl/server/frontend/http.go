package frontend

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"udm/ctl"
)

// HTTP is a front end that answers HTTP requests on a socket. Requests that wait end
// when it is drained.
type HTTP struct {
	Managed bool        // the socket is the service manager's
	TLS     *tls.Config // nil: none

	name   string
	listen func() (net.Listener, error)
	http   http.Server
	stop   context.CancelFunc
	served chan struct{} // closed when the last request is answered

	taken    net.Listener // handed over by another process
	listener net.Listener // set by Start
	maxConns int          // 0: there is no limit

	mu      sync.Mutex
	address string            // guarded by mu
	conns   map[net.Conn]bool // guarded by mu
}

// NewHTTP returns a front end that has h answer on the socket that listen opens.
func NewHTTP(name string, h http.Handler, listen func() (net.Listener, error), log *slog.Logger) *HTTP {
	ctx, stop := context.WithCancel(context.Background())
	p := &HTTP{name: name, listen: listen, stop: stop, served: make(chan struct{}), conns: make(map[net.Conn]bool)}
	p.http = http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return ctx }, ConnState: p.note,
		ReadHeaderTimeout: 30 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn)}
	return p
}

// Bound bounds connections and the time of each request, and of a connection without one:
// for unknown clients. Call it before Start.
func (p *HTTP) Bound(conns int, request, idle time.Duration) {
	p.maxConns = conns
	p.http.ReadTimeout, p.http.WriteTimeout, p.http.IdleTimeout = request, request, idle
}

// Name implements Server.
func (p *HTTP) Name() string { return p.name }

// Start implements Server.
func (p *HTTP) Start(fail func(error)) error {
	l, err := p.taken, error(nil)
	if l == nil {
		l, err = p.listen()
	}
	if err != nil {
		return err
	}
	p.listener = l
	p.mu.Lock()
	p.address = l.Addr().String()
	p.mu.Unlock()
	go func() {
		defer close(p.served)
		if err := p.serve(l); !errors.Is(err, http.ErrServerClosed) {
			fail(err)
		}
	}()
	return nil
}

func (p *HTTP) serve(l net.Listener) error {
	if p.TLS == nil {
		return p.http.Serve(l)
	}
	p.http.TLSConfig, p.http.TLSNextProto = p.TLS, map[string]func(*http.Server, *tls.Conn, http.Handler){} // HTTP/1 only
	return p.http.ServeTLS(l, "", "")
}

func (p *HTTP) note(c net.Conn, now http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch now {
	case http.StateNew:
		if p.conns[c] = true; p.maxConns > 0 && len(p.conns) > p.maxConns {
			c.Close()
		}
	case http.StateClosed, http.StateHijacked:
		delete(p.conns, c)
	}
}

// Status implements Server.
func (p *HTTP) Status() ctl.FrontEnd {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := ctl.FrontEnd{Name: p.Name(), Addresses: []string{p.address}}
	for c := range p.conns {
		out.Clients = append(out.Clients, ctl.FrontEndClient{Address: c.RemoteAddr().String()})
	}
	return out
}

// Drain implements Server.
func (p *HTTP) Drain(ctx context.Context) error {
	p.stop()
	err := p.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, p.http.Close())
	}
	<-p.served
	return err
}

// Close implements Server.
func (p *HTTP) Close() error {
	p.stop()
	err := p.http.Close()
	<-p.served
	return err
}
