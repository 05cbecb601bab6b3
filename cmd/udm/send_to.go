package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"udm/blk/nbddev"
	"udm/ctl"
	"udm/volume"
)

// destination is another daemon that is sent a stream.
type destination struct {
	address      string // a root directory, or tls://HOST:PORT
	certificates string // directory
	name         string // of the new device; "": that of the one that is sent
	pool, base   string
}

func (d *destination) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&d.address, "to", "", "send to the daemon of this root `DIRECTORY`, or at tls://HOST:PORT")
	f.StringVar(&d.certificates, "certificates", "", "`DIRECTORY` with ca-cert.pem, client-cert.pem and client-key.pem for tls://")
	f.StringVar(&d.name, "name", "", "`NAME` of the new device there")
	f.StringVar(&d.pool, "pool", "", "`POOL` there, for a new volume")
	f.StringVar(&d.base, "base", "", "the `DEVICE` there that the stream is based on")
}

func (d *destination) client() (*ctl.Client, error) {
	address, far := strings.CutPrefix(d.address, "tls://")
	if !far {
		root, err := filepath.Abs(d.address)
		return ctl.NewClient(root), err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if d.certificates != "" {
		if err := nbddev.ReadCertificates(conf, d.certificates); err != nil {
			return nil, err
		}
	}
	return ctl.NewTLSClient(address, conf), nil
}

// send sends a device. It resumes a stream that was cut off.
func (d *destination) send(cmd *cobra.Command, s volume.SendSpec) error {
	near, err := clientOf(cmd)
	if err != nil {
		return err
	}
	defer near.Close()
	far, err := d.client()
	if err != nil {
		return err
	}
	defer far.Close()
	r := volume.ReceiveSpec{Name: d.name, Pool: d.pool, Base: d.base, Keep: true}
	if r.Name == "" {
		r.Name = s.Name
	}
	at, err := whereCut(cmd.Context(), far, r.Name)
	if err != nil {
		return err
	}
	if at != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "udm: %s has the first %s there; going on\n", r.Name, formatBytes(*at))
		s.Offset, r.Resume = *at, true
	}
	err = follow(cmd, near, []string{s.Name}, func(ctx context.Context, near *ctl.Client) error {
		return pipe(func(w io.Writer) error { return near.Send(ctx, s, w) }, func(in io.Reader) error {
			_, err := far.Receive(ctx, r, in)
			return err
		})
	})
	var refused *ctl.Error
	if err != nil && cmd.Context().Err() == nil && !errors.As(err, &refused) {
		err = fmt.Errorf("%w; give the same command again to go on", err)
	}
	return err
}

// How long and how often a stream that is cut off is looked at, until the daemon there
// knows that it is.
const (
	knownAfter = 10 * time.Second
	lookEvery  = 50 * time.Millisecond
)

// whereCut returns the offset at which the stream of a device was cut off; nil: it was not.
func whereCut(ctx context.Context, c *ctl.Client, name string) (*uint64, error) {
	for late := time.After(knownAfter); ; {
		objects, err := c.Objects(ctx)
		i := slices.IndexFunc(objects, func(o volume.Object) bool { return o.Name == name+"-incoming" && o.Incoming != nil })
		if err != nil || i < 0 {
			return nil, err
		}
		if objects[i].State != volume.Receiving {
			return objects[i].Incoming, nil
		}
		select {
		case <-time.After(lookEvery):
		case <-late:
			return objects[i].Incoming, nil // it says that it is being received
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pipe runs the writer and the reader of a stream. If one fails the other one does, too; the
// writer's error is the reason, or the same.
func pipe(write func(io.Writer) error, read func(io.Reader) error) error {
	in, out := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := write(out)
		out.CloseWithError(err)
		written <- err
	}()
	err := read(in)
	in.CloseWithError(err)
	if werr := <-written; err != nil && werr != nil {
		return werr
	}
	return err
}
