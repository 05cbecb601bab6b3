package server

import (
	"path/filepath"

	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/ctl/server/protocol"
	"udm/ctl/server/service"
	"udm/export/nbd"
)

// frontEnds returns all front ends of a service in the order in which they are
// started; add new ones here. The first one answers while devices are restored; the
// others start after that.
func frontEnds(s *service.Service, cfg Config) ([]frontend.Server, error) {
	x := s.Exports().For("nbd")
	x.ReadOnly = cfg.ReadOnly
	c := nbd.Config{Exports: x.ByName(), MaxConns: cfg.MaxConns, Log: cfg.Log}
	local, err := newNBD(nbdName, cfg.socket(nbdName, unixSocket(filepath.Join(cfg.Root, ctl.NBDSocket))), c)
	if err != nil {
		return nil, err
	}
	control := protocol.NewServer(s, cfg.socket(controlName, unixSocket(filepath.Join(cfg.Root, ctl.Socket))), cfg.Log)
	list := []frontend.Server{control, local}
	if cfg.Listen != "" || cfg.Sockets[nbdTCPName] != nil {
		if cfg.TLS != nil {
			c.TLS = nbd.TLS{Mode: nbd.TLSRequire, Config: cfg.TLS}
		}
		remote, err := newNBD(nbdTCPName, cfg.socket(nbdTCPName, tcpSocket(cfg.Listen)), c)
		if err != nil {
			return nil, err
		}
		list = append(list, remote)
	}
	return append(list, s.Kernel().Files(cfg.Mount), s.Kernel().Devices(), s.Sockets()), nil
}
