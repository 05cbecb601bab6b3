package frontend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"udm/ctl/server/handover"
)

// Keep returns another descriptor of a listening socket, whose path stays when the
// listener is closed.
func Keep(l net.Listener) (*os.File, error) {
	switch l := l.(type) {
	case *net.UnixListener:
		l.SetUnlinkOnClose(false)
		return l.File()
	case *net.TCPListener:
		return l.File()
	}
	return nil, fmt.Errorf("a %T cannot be handed over", l)
}

// Calm implements Mover: requests end, those that wait with an error.
func (p *HTTP) Calm(ctx context.Context) {
	kept, err := Keep(p.listener)
	if err != nil {
		return // Hand says so
	}
	p.kept = kept
	_ = p.Drain(ctx) // what it says, clients have seen
}

// Hand implements Mover.
func (p *HTTP) Hand(_ context.Context, b *handover.Bundle) error {
	if p.kept == nil {
		return errors.New("the socket cannot be handed over")
	}
	return b.Put(p.name, struct{}{}, p.kept)
}

// Take implements Mover.
func (p *HTTP) Take(b *handover.Bundle) (err error) {
	files, ok, err := b.Take(p.name, new(struct{}))
	if !ok || err != nil {
		return err
	}
	p.taken, err = Listen(files, p.Managed)
	return err
}

// Listen returns the listener of a part's first file. Closing it removes the path of a
// Unix socket, unless that is the service manager's.
func Listen(files []*os.File, managed bool) (net.Listener, error) {
	if len(files) == 0 {
		return nil, errors.New("the socket was not handed over")
	}
	defer files[0].Close()
	l, err := net.FileListener(files[0])
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(!managed)
	}
	return l, err
}
