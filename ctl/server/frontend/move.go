package frontend

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"udm/ctl/server/handover"
)

// keep returns another descriptor of a listening socket, whose path stays when the
// listener is closed.
func keep(l net.Listener) (*os.File, error) {
	switch l := l.(type) {
	case *net.UnixListener:
		l.SetUnlinkOnClose(false)
		return l.File()
	case *net.TCPListener:
		return l.File()
	}
	return nil, fmt.Errorf("a %T cannot be handed over", l)
}

// SocketPart is the name of the part of a bundle with the socket of a front end.
func SocketPart(name string) string { return name + socketSuffix }

// IsSocketPart reports whether a part has a socket only.
func IsSocketPart(part string) bool { return strings.HasSuffix(part, socketSuffix) }

const socketSuffix = " socket"

// PutSocket puts a listening socket into a bundle, where its path stays when the listener is
// closed.
func PutSocket(b *handover.Bundle, name string, l net.Listener) error {
	kept, err := keep(l)
	if err != nil {
		return err
	}
	return b.Put(SocketPart(name), struct{}{}, kept)
}

// TakeSocket takes a listening socket out of a bundle; nil: there is none.
func TakeSocket(b *handover.Bundle, name string, managed bool) (net.Listener, error) {
	files, ok, err := b.Take(SocketPart(name), new(struct{}))
	if !ok || err != nil {
		return nil, err
	}
	return listen(files, managed)
}

// Calm implements Mover: requests end, those that wait with an error.
func (p *HTTP) Calm(ctx context.Context, b *handover.Bundle) error {
	if err := PutSocket(b, p.name, p.listener); err != nil {
		return err
	}
	_ = p.Drain(ctx) // what it says, clients have seen
	return nil
}

// Hand implements Mover.
func (p *HTTP) Hand(context.Context, *handover.Bundle, handover.Group) error { return nil }

// Take implements Mover.
func (p *HTTP) Take(b *handover.Bundle) error {
	l, err := TakeSocket(b, p.name, p.Managed)
	if l != nil {
		p.taken = l
	}
	return err
}

// listen returns the listener of a part's first file. Closing it removes the path of a
// Unix socket, unless that is the service manager's.
func listen(files []*os.File, managed bool) (net.Listener, error) {
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
