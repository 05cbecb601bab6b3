package ctl

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net"
	"net/http"
	"path/filepath"
	"syscall"
)

// Socket is the name of the control socket in a daemon's root; NBDSocket is that of
// its NBD server.
const (
	Socket    = "control.sock"
	NBDSocket = "nbd.sock"
	// NumberedDir is where a mount shows the devices by number.
	NumberedDir = "by-number"
)

// Client talks to one daemon. It is safe for concurrent use.
type Client struct {
	root string // or the address
	http http.Client
}

// NewClient returns a client of the daemon at root. It connects on first use.
func NewClient(root string) *Client {
	c := &Client{root: root}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(root, Socket))
	}}
	return c
}

// NewTLSClient returns a client of the daemon that receives at an address HOST:PORT: it can
// Receive there, and list what is being received as Objects.
func NewTLSClient(address string, conf *tls.Config) *Client {
	c := &Client{root: address}
	d := &tls.Dialer{Config: conf}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := d.DialContext(ctx, network, address)
		if err != nil {
			err = &unreachable{address, err}
		}
		return conn, err
	}}
	return c
}

// unreachable is the error when there is no connection to a daemon elsewhere.
type unreachable struct {
	address string
	err     error
}

func (e *unreachable) Error() string {
	return fmt.Sprintf("cannot connect to the daemon at %s: %v; see that udm daemon --receive runs there, and that both accept each other's certificates", e.address, e.err)
}

func (e *unreachable) Unwrap() error { return e.err }

// Close drops the client's connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// NotRunning is the error when no daemon can be reached.
type NotRunning struct {
	Root string
	Err  error
}

func (e *NotRunning) Error() string {
	if errors.Is(e.Err, fs.ErrPermission) {
		return fmt.Sprintf("permission denied by the daemon at %s; run this as the user that started the daemon", e.Root)
	}
	return fmt.Sprintf("no daemon is running at %s; start one: udm daemon --root %s", e.Root, e.Root)
}

func (e *NotRunning) Unwrap() error { return e.Err }

// call posts in to a command and decodes the answer into out.
func (c *Client) call(ctx context.Context, command string, in, out any) error {
	answer, err := c.post(ctx, command, in)
	if err != nil {
		return err
	}
	defer answer.Close()
	return json.NewDecoder(answer).Decode(out)
}

// post posts in to a command and returns the body of the answer, or the error in it.
func (c *Client) post(ctx context.Context, command string, in any) (io.ReadCloser, error) {
	resp, err := c.do(ctx, command, in, nil)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// do posts in to a command, and a stream behind it, if there is one.
func (c *Client) do(ctx context.Context, command string, in any, stream io.Reader) (*http.Response, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	var r io.Reader = bytes.NewReader(body)
	if stream != nil {
		r = io.MultiReader(bytes.NewReader(append(body, '\n')), stream)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://udm/v1/"+command, r)
	if err != nil {
		return nil, err
	}
	return c.send(req)
}

// send returns the answer to a request, or the error in it.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(req.Context(), err)
	}
	if resp.StatusCode >= 400 {
		defer resp.Body.Close()
		return nil, decodeError(resp)
	}
	return resp, nil
}

// Metrics writes what the daemon tells Prometheus, in the text format of OpenMetrics.
func (c *Client) Metrics(ctx context.Context, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://udm/metrics", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	resp, err := c.send(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// call runs the command on the daemon. The stream ends without an error when ctx
// does.
func (name streaming[In, Out]) call(ctx context.Context, c *Client, in In) (iter.Seq2[Out, error], error) {
	answer, err := c.post(ctx, string(name), in)
	if err != nil {
		return nil, err
	}
	return func(yield func(Out, error) bool) {
		defer answer.Close()
		for d := json.NewDecoder(answer); ; {
			var v Out
			err := d.Decode(&v)
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				err = c.failed(ctx, err)
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}, nil
}

func (c *Client) failed(ctx context.Context, err error) error {
	var op *net.OpError
	var far *unreachable
	switch {
	case ctx.Err() != nil:
		return syscall.EINTR
	case errors.As(err, &far):
		return far
	case errors.As(err, &op) && op.Op == "dial":
		return &NotRunning{c.root, err}
	}
	return fmt.Errorf("the connection to the daemon at %s was lost: %w", c.root, err)
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
