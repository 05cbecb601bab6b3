package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// Commands with a stream of bytes. One that is sent follows the request, which is the
// first line of the body; one that is answered is the answer.

// ErrorTrailer is the trailer of an answer of bytes that has ended in an error.
const ErrorTrailer = "Udm-Error"

// Download is an answer of bytes: it writes them.
type Download func(w io.Writer) error

// Uploading is a request with a stream behind it: Parts are what is to be filled in.
type Uploading interface {
	Parts() (request any, stream *io.Reader)
}

// sent is such a request.
type sent[In any] struct {
	in     In
	stream io.Reader
}

func (u *sent[In]) Parts() (any, *io.Reader) { return &u.in, &u.stream }

// uploading is a command that is sent a stream, for who calls it.
type uploading[In, Out any] string

func upload[In, Out any](name string, do func(Service, context.Context, In, io.Reader) (Out, error)) uploading[In, Out] {
	request(name, func(s Service, ctx context.Context, u sent[In]) (Out, error) { return do(s, ctx, u.in, u.stream) })
	return uploading[In, Out](name)
}

// call sends the request and the stream. When ctx ends it returns at once; a read of
// the stream that is blocked then goes on until the stream's owner ends it.
func (name uploading[In, Out]) call(ctx context.Context, c *Client, in In, stream io.Reader) (out Out, err error) {
	body, from := io.Pipe()
	go func() {
		_, err := io.Copy(from, stream)
		from.CloseWithError(err)
	}()
	defer body.Close()
	defer context.AfterFunc(ctx, func() { body.CloseWithError(ctx.Err()) })()
	resp, err := c.do(ctx, string(name), in, body)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	return out, json.NewDecoder(resp.Body).Decode(&out)
}

// downloading is a command that answers bytes, for who calls it.
type downloading[In any] string

func download[In any](name string, do func(Service, context.Context, In, io.Writer) error) downloading[In] {
	request(name, func(s Service, ctx context.Context, in In) (Download, error) {
		return func(w io.Writer) error { return do(s, ctx, in, w) }, nil
	})
	return downloading[In](name)
}

func (name downloading[In]) call(ctx context.Context, c *Client, in In, w io.Writer) error {
	resp, err := c.do(ctx, string(name), in, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	to := &noted{w: w}
	switch _, err := io.Copy(to, resp.Body); {
	case to.err != nil:
		return to.err
	case err != nil:
		return c.failed(ctx, err)
	}
	return trailerError(resp)
}

func trailerError(resp *http.Response) error {
	text := resp.Trailer.Get(ErrorTrailer)
	if text == "" {
		return nil
	}
	e := new(Error)
	if json.Unmarshal([]byte(text), e) != nil {
		return errors.New(text)
	}
	return e
}

// noted notes why nothing more can be written.
type noted struct {
	w   io.Writer
	err error
}

func (n *noted) Write(p []byte) (int, error) {
	m, err := n.w.Write(p)
	n.err = err
	return m, err
}
