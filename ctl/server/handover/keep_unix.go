//go:build unix

package handover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// keepTime is how long each side waits for the other one.
const keepTime = 10 * time.Second

// Kept is true if a root has a keeper.
func Kept(root string) bool {
	c, err := dialKeeper(root)
	if c != nil {
		c.conn.Close()
	}
	return c != nil && err == nil
}

// Keep gives a bundle to the keeper of a root. The files of the bundle stay open here.
func Keep(root string, b *Bundle) error {
	c, err := order{protocol, false}.to(root)
	if err != nil || c == nil {
		return errors.Join(err, errNoKeeper(c))
	}
	defer c.conn.Close()
	if err := c.sendBundle(b); err != nil {
		return err
	}
	return c.confirmed()
}

// TakeKept takes what the keeper of a root has; nil: there is no keeper, or it has nothing.
func TakeKept(root string) (*Bundle, error) {
	c, err := order{protocol, true}.to(root)
	if err != nil || c == nil {
		return nil, err
	}
	defer c.conn.Close()
	b, err := c.receiveBundle()
	if err != nil {
		return nil, err
	}
	if err := c.send(answer{}); err != nil || len(b.Names()) == 0 {
		b.Close()
		return nil, err
	}
	return b, nil
}

func errNoKeeper(c *channel) error {
	if c == nil {
		return errors.New("there is no keeper any more")
	}
	return nil
}

// to connects to the keeper of a root; nil: there is none.
func (o order) to(root string) (*channel, error) {
	c, err := dialKeeper(root)
	if err != nil || c == nil {
		return nil, err
	}
	if err := errors.Join(c.limit(keepTime), c.send(o)); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}

func dialKeeper(root string) (*channel, error) {
	c, err := net.Dial("unix", filepath.Join(root, KeepSocket))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return &channel{c.(*net.UnixConn)}, nil
}

// confirmed waits for an answer that does not refuse.
func (c channel) confirmed() error {
	var a answer
	err := c.receive(&a)
	if err == nil && a.Refused != "" {
		err = errors.New(a.Refused)
	}
	return err
}

// ServeKeeper is the keeper of a root until ctx ends. What it then has is lost.
func ServeKeeper(ctx context.Context, root string, log *slog.Logger, ready func()) error {
	l, err := listenKeeper(root)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	defer l.Close()
	k := keeper{log: log, has: new(Bundle)}
	defer func() { k.has.Close() }()
	ready()
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if err := k.serve(channel{conn}); err != nil {
			log.Warn("a daemon was not served", "reason", err)
		}
		conn.Close()
	}
}

func listenKeeper(root string) (*net.UnixListener, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(root, KeepSocket)
	if Kept(root) {
		return nil, fmt.Errorf("another keeper serves %s; one is enough", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// keeper is the state of one.
type keeper struct {
	log *slog.Logger
	has *Bundle
}

// serve carries out one order. A connection without one only asks whether there is a keeper.
func (k *keeper) serve(c channel) error {
	var o order
	if err := c.limit(keepTime); err != nil {
		return err
	}
	if err := c.receive(&o); err != nil {
		return nil
	}
	if o.Protocol != protocol {
		return c.send(answer{Refused: fmt.Sprintf("the keeper has protocol %d, the daemon %d; restart the keeper while nothing is in use", protocol, o.Protocol)})
	}
	if o.Take {
		return k.give(c)
	}
	return k.take(c)
}

func (k *keeper) take(c channel) error {
	b, err := c.receiveBundle()
	if err != nil {
		return err
	}
	k.has.Close()
	k.has = b
	k.log.Info("kept until the next daemon", "parts", b.Names())
	return c.send(answer{})
}

// give gives the bundle away once the other side confirms that it has it.
func (k *keeper) give(c channel) error {
	if err := c.sendBundle(k.has); err != nil {
		return err
	}
	if err := c.confirmed(); err != nil {
		return err
	}
	if names := k.has.Names(); len(names) > 0 {
		k.log.Info("given to a daemon", "parts", names)
	}
	k.has.Close()
	return nil
}
