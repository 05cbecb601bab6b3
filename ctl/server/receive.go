package server

import (
	"context"
	"io"
	"slices"
	"strings"
	"syscall"

	"udm/ctl"
	"udm/ctl/server/frontend"
	"udm/ctl/server/protocol"
	"udm/dm"
	"udm/volume"
)

// newReceiver returns the front end that receives streams from other daemons.
func (d *daemon) newReceiver(s ctl.Service) *frontend.HTTP {
	h := protocol.Handler(receiver{s}, d.cfg.Log, "receive", "objects")
	f := frontend.NewHTTP(receiverName, h, tcpSocket(d.cfg.Receive), d.cfg.Log)
	f.TLS = d.cfg.TLS
	return f
}

// receiver is the service for clients that may only send streams: they cannot name files,
// and see only what is being received.
type receiver struct{ ctl.Service }

func (r receiver) Receive(ctx context.Context, s volume.ReceiveSpec, in io.Reader) (volume.Received, error) {
	if s.File != "" || strings.Contains(s.Base, "/") {
		return volume.Received{}, dm.Errorf(syscall.EPERM, "files of this machine cannot be named from another one; name a pool or a device")
	}
	return r.Service.Receive(ctx, s, in)
}

func (r receiver) Objects(ctx context.Context) ([]volume.Object, error) {
	all, err := r.Service.Objects(ctx)
	return slices.DeleteFunc(all, func(o volume.Object) bool { return o.Incoming == nil }), err
}
