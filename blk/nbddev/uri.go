package nbddev

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"udm/blk/nbdclient"
)

// Parse parses an NBD URI:
//
//	nbd://HOST[:PORT]/EXPORT   nbd+unix:///EXPORT?socket=PATH   nbds://…   nbds+unix://…
//
// with the parameters of the NBD URI specification, of libnbd and of this device:
//
//	tls-certificates=DIR   ca-cert.pem (else the system's), client-cert.pem, client-key.pem
//	tls-hostname=NAME      expected in the server's certificate
//	tls-verify-peer=0      accept any certificate
//	timeout=SECONDS        see Options
//	connections=N          see Options
//	path=1                 see Options
//
// It opens nothing: certificates are read for each connection, so that renewed ones
// are used.
func Parse(uri string) (Options, error) {
	network, addr, export, secure, err := nbdclient.ParseURI(uri)
	if err != nil {
		return Options{}, err
	}
	u, err := url.Parse(uri)
	if err != nil {
		return Options{}, err
	}
	o := Options{Name: uri, Export: export, Dial: dialer(network, addr)}
	q := u.Query()
	if err := o.parameters(q); err != nil {
		return Options{}, fmt.Errorf("%s: %w", uri, err)
	}
	if secure {
		err = o.secure(q, u.Hostname())
	}
	return o, err
}

// parameters parses the parameters that are not about TLS.
func (o *Options) parameters(q url.Values) error {
	for name, values := range q {
		switch name {
		case "timeout":
			n, err := strconv.ParseUint(values[0], 10, 31)
			if err != nil || n == 0 {
				return fmt.Errorf("timeout=%s: not a number of seconds; leave it out for no limit", values[0])
			}
			o.Timeout = time.Duration(n) * time.Second
		case "connections":
			n, err := strconv.ParseUint(values[0], 10, 8)
			if err != nil || n == 0 || n > 16 {
				return fmt.Errorf("connections=%s: not a number from 1 to 16", values[0])
			}
			o.Connections = int(n)
		case "tls-psk-file", "tls-username":
			return fmt.Errorf("%s: TLS with pre-shared keys is not supported; use certificates", name)
		case "tls-type":
			if values[0] != "x509" {
				return fmt.Errorf("tls-type=%s is not supported; use x509", values[0])
			}
		case "path":
			if o.Path = values[0] == "1"; !o.Path && values[0] != "0" {
				return fmt.Errorf("path=%s: neither 0 nor 1", values[0])
			}
		case "socket", "tls-certificates", "tls-hostname", "tls-verify-peer":
		default:
			return fmt.Errorf("unknown parameter %q; use socket, timeout, connections, path, tls-certificates, tls-hostname and tls-verify-peer", name)
		}
	}
	return nil
}

// secure sets up TLS.
func (o *Options) secure(q url.Values, host string) error {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if name := q.Get("tls-hostname"); name != "" {
		c.ServerName = name
	}
	switch verify := q.Get("tls-verify-peer"); verify {
	case "", "1", "true":
	case "0", "false":
		c.InsecureSkipVerify = true
	default:
		return fmt.Errorf("tls-verify-peer=%s: neither 0 nor 1", verify)
	}
	if c.ServerName == "" && !c.InsecureSkipVerify {
		return errors.New("TLS over a socket needs tls-hostname=NAME, or tls-verify-peer=0")
	}
	o.TLS = func() (*tls.Config, error) {
		dir, c := q.Get("tls-certificates"), c.Clone()
		if dir == "" {
			return c, nil
		}
		return c, ReadCertificates(c, dir)
	}
	return nil
}

// ReadCertificates reads the certificates of a client in a directory, in the layout of
// libnbd, nbdkit and qemu. The client's certificate and key are a pair.
func ReadCertificates(c *tls.Config, dir string) error {
	pem, err := os.ReadFile(filepath.Join(dir, "ca-cert.pem"))
	if err == nil {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("there is no certificate in %s", filepath.Join(dir, "ca-cert.pem"))
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
	switch {
	case err == nil:
		c.Certificates = []tls.Certificate{pair}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case c.RootCAs == nil:
		return fmt.Errorf("there are no certificates in %s; use ca-cert.pem for the authority, client-cert.pem and client-key.pem for the client", dir)
	}
	return nil
}

// dialer connects to an address; it detects a dead peer within half a minute.
func dialer(network, addr string) Dialer {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
		Control:         limitSilence,
	}
	return func(ctx context.Context) (io.ReadWriteCloser, error) { return d.DialContext(ctx, network, addr) }
}
