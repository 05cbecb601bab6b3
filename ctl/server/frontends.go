package server

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/ctl/server/metrics"
	"udm/ctl/server/protocol"
	"udm/ctl/server/service"
	"udm/ctl/server/vhostuser"
	"udm/ctl/server/web"
	"udm/export/nbd"
)

var _ frontend.Divider = (*vhostuser.Sockets)(nil)

// newFrontEnds returns all front ends of a service in the order in which they are
// started; add new ones here. The first one answers while devices are restored; the
// others start after that.
func (d *daemon) newFrontEnds(s *service.Service) ([]frontend.Server, error) {
	cfg := &d.cfg
	x := s.Exports().For(service.NBDClients)
	x.ReadOnly = cfg.ReadOnly
	c := nbd.Config{Exports: x.ByName(), MaxConns: cfg.MaxConns, Log: cfg.Log}
	local, err := d.newNBD(nbdName, cfg.socket(nbdName, unixSocket(filepath.Join(cfg.Root, ctl.NBDSocket))), c)
	if err != nil {
		return nil, err
	}
	looks := metrics.Handler(metrics.Config{Service: s, Root: cfg.Root, Log: cfg.Log})
	control := frontend.NewHTTP(controlName, controlHandler(protocol.Handler(s, cfg.Log), looks, d.serveProblems(s), d.askedToReplace), cfg.socket(controlName, unixSocket(filepath.Join(cfg.Root, ctl.Socket))), cfg.Log)
	control.Managed = slices.Contains(d.managed, controlName)
	list := []frontend.Server{control, local}
	if cfg.Listen != "" || slices.Contains(d.managed, nbdTCPName) {
		if cfg.TLS != nil {
			c.TLS = nbd.TLS{Mode: nbd.TLSRequire, Config: cfg.TLS}
		}
		remote, err := d.newNBD(nbdTCPName, cfg.socket(nbdTCPName, tcpSocket(cfg.Listen)), c)
		if err != nil {
			return nil, err
		}
		list = append(list, remote)
	}
	if cfg.Receive != "" {
		list = append(list, d.newReceiver(s))
	}
	if cfg.Metrics != "" {
		list = append(list, frontend.NewHTTP(metricsName, looks, metricsSocket(cfg.Metrics), cfg.Log))
		if _, err := s.Stats(context.Background()); err != nil { // devices count from the start
			return nil, err
		}
	}
	if cfg.Web != "" {
		page, err := d.newPage(s)
		if err != nil {
			return nil, err
		}
		list = append(list, page)
	}
	return append(list, s.Kernel().Files(cfg.Mount), s.Kernel().Devices(), s.Sockets()), nil
}

// Bounds of the page's front end: browsers keep up to six connections.
const (
	webConns   = 64
	webRequest = time.Minute // operations included
	webIdle    = 2 * time.Minute
)

// newPage returns the front end of the page for people.
func (d *daemon) newPage(s *service.Service) (frontend.Server, error) {
	cfg := &d.cfg
	address, err := webAddress(cfg.Web)
	if err != nil {
		return nil, err
	}
	token, err := web.Token(cfg.Root)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(address) // webAddress has made it
	h, err := web.Handler(web.Config{Service: s, Root: cfg.Root, Watch: d.problems, Token: token, Host: host, Operations: cfg.WebOperations, Machine: cfg.Machine, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	p := frontend.NewHTTP(webName, h, tcpSocket(address), cfg.Log)
	p.Bound(webConns, webRequest, webIdle)
	return p, nil
}

// controlHandler answers commands, and metrics and problems to who may use the control socket.
func controlHandler(commands, looks http.Handler, problems, replace http.HandlerFunc) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+ctl.ReplacePath, replace)
	mux.HandleFunc("GET "+ctl.ProblemsPath, problems)
	mux.Handle("/", commands)
	for _, path := range []string{"/metrics", "/healthz", "/readyz"} {
		mux.Handle("GET "+path, looks)
	}
	return mux
}
