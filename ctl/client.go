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

// Version tells what runs there.
func (c *Client) Version(ctx context.Context) (v Version, err error) {
	return v, c.call(ctx, "version", struct{}{}, &v)
}

// Targets lists the target types, ascending by name, with their manuals.
func (c *Client) Targets(ctx context.Context) (ts []Target, err error) {
	return ts, c.call(ctx, "targets", struct{}{}, &ts)
}

// Params lists the parameters of the target types, ascending by name.
func (c *Client) Params(ctx context.Context) (ps []Param, err error) {
	return ps, c.call(ctx, "params", struct{}{}, &ps)
}

// SetParam changes a parameter until the daemon ends.
func (c *Client) SetParam(ctx context.Context, r SetParam) (p Param, err error) {
	return p, c.call(ctx, "set_param", r, &p)
}

// List lists all devices, ascending by name.
func (c *Client) List(ctx context.Context, q Query) (ds []Device, err error) {
	return ds, c.call(ctx, "list", q, &ds)
}

// Device asks about one device.
func (c *Client) Device(ctx context.Context, q Query) (d Device, err error) {
	return d, c.call(ctx, "device", q, &d)
}

// Create makes a device.
func (c *Client) Create(ctx context.Context, r Create) (d Device, err error) {
	return d, c.call(ctx, "create", r, &d)
}

// Load fills a device's inactive slot.
func (c *Client) Load(ctx context.Context, r Load) (d Device, err error) {
	return d, c.call(ctx, "load", r, &d)
}

// Clear empties a device's inactive slot.
func (c *Client) Clear(ctx context.Context, r Ref) (d Device, err error) {
	return d, c.call(ctx, "clear", r, &d)
}

// Suspend stops a device's I/O. Cancelling ctx gives up: EINTR.
func (c *Client) Suspend(ctx context.Context, r Suspend) (d Device, err error) {
	return d, c.call(ctx, "suspend", r, &d)
}

// Resume makes the inactive table live and lets I/O flow.
func (c *Client) Resume(ctx context.Context, r Suspend) (d Device, err error) {
	return d, c.call(ctx, "resume", r, &d)
}

// Remove removes a device; one that is open is only marked if that is asked for.
func (c *Client) Remove(ctx context.Context, r Remove) error {
	return c.call(ctx, "remove", r, nil)
}

// RemoveAll removes every device that is not open.
func (c *Client) RemoveAll(ctx context.Context, r Remove) error {
	return c.call(ctx, "remove_all", r, nil)
}

// Rename changes a device's name or sets its uuid.
func (c *Client) Rename(ctx context.Context, r Rename) (d Device, err error) {
	return d, c.call(ctx, "rename", r, &d)
}

// Message sends words to a target and returns its answer.
func (c *Client) Message(ctx context.Context, r Message) (string, error) {
	var reply Reply
	err := c.call(ctx, "message", r, &reply)
	return reply.Text, err
}

// Wait blocks until a device's event number is not r.Event. Cancelling ctx
// gives up: EINTR.
func (c *Client) Wait(ctx context.Context, r Wait) (d Device, err error) {
	return d, c.call(ctx, "wait", r, &d)
}
