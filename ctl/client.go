package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
)

// Socket is the name of the control socket in a daemon's root; NBDSocket that of
// its exports.
const (
	Socket    = "control.sock"
	NBDSocket = "nbd.sock"
)

// Client speaks to the daemon of one root. It is safe for concurrent use.
type Client struct {
	root string
	http http.Client
}

// NewClient returns a client of the daemon at root. It connects when used.
func NewClient(root string) *Client {
	c := &Client{root: root}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(root, Socket))
	}}
	return c
}

// Close drops the client's connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NotRunning is the error when there is no daemon to speak to.
type NotRunning struct {
	Root string
	Err  error
}

func (e *NotRunning) Error() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("no permission to control the daemon at %s; run as the user that started it", e.Root)
	}
	return fmt.Sprintf("no daemon runs at %s; start one with: udm daemon --root %s", e.Root, e.Root)
}

func (e *NotRunning) Unwrap() error { return e.Err }

// call posts in to a command and decodes the answer to out, which may be nil.
func (c *Client) call(ctx context.Context, command string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://udm/v1/"+command, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return decodeError(resp)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (c *Client) failed(ctx context.Context, err error) error {
	var op *net.OpError
	switch {
	case ctx.Err() != nil:
		return syscall.EINTR
	case errors.As(err, &op) && op.Op == "dial":
		return &NotRunning{c.root, err}
	}
	return fmt.Errorf("the daemon at %s went away: %w", c.root, err)
}

func decodeError(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	e := new(Error)
	if json.Unmarshal(text, e) != nil || e.Errno == "" {
		return fmt.Errorf("the daemon answered %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return e
}
