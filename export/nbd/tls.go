package nbd

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// TLSMode says when a connection is encrypted.
type TLSMode int

// The modes are the specification's NOTLS, SELECTIVETLS without exports that
// need it, and FORCEDTLS.
const (
	TLSOff     TLSMode = iota // never
	TLSOn                     // when the client asks for it
	TLSRequire                // always: the server refuses other options before
)

// TLS configures a server's encryption. The zero value is off.
type TLS struct {
	Mode   TLSMode
	Config *tls.Config // certificates; needed unless the mode is TLSOff
}

// LoadTLS reads server-cert.pem, server-key.pem and, to verify clients,
// ca-cert.pem from a directory: the layout that libnbd, nbdkit and qemu share.
// With verifyClients a client without a certificate of that authority is refused.
func LoadTLS(dir string, verifyClients bool) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "server-cert.pem"), filepath.Join(dir, "server-key.pem"))
	if err != nil {
		return nil, fmt.Errorf("TLS certificate of the server: %w", err)
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if verifyClients {
		err = VerifyClients(c, filepath.Join(dir, "ca-cert.pem"))
	}
	return c, err
}

// VerifyClients makes a server refuse clients without a certificate of the authority
// in a PEM file. Call it last, after c has the server's own certificate.
func VerifyClients(c *tls.Config, ca string) (err error) {
	c.ClientAuth = tls.RequireAndVerifyClientCert
	if c.ClientCAs, err = LoadCA(ca); err == nil {
		c.GetConfigForClient = certificatesOfGnuTLS(c)
	}
	return err
}

// recordSizeLimit is a TLS extension that is offered by GnuTLS, and by hardly any
// other program.
const recordSizeLimit = 28

// certificatesOfGnuTLS makes certificates with RSA keys work for clients that use
// GnuTLS. In TLS 1.3 Go correctly requests only RSA-PSS signatures, but GnuTLS (3.7)
// selects a certificate by its key's PKCS #1 signature, which TLS 1.3 does not have,
// and sends none. Both agree on RSA and ECDSA in TLS 1.2, so such clients get TLS
// 1.2. They agree on Ed25519 only in TLS 1.3, so that is kept if the server's own key
// is Ed25519. All other clients use TLS 1.3.
func certificatesOfGnuTLS(c *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	if _, modern := c.Certificates[0].PrivateKey.(ed25519.PrivateKey); modern {
		return nil
	}
	old := c.Clone()
	old.MaxVersion = tls.VersionTLS12
	return func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.Extensions, recordSizeLimit) {
			return old, nil
		}
		return nil, nil
	}
}

// LoadCA reads the certificates of an authority from a PEM file.
func LoadCA(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("TLS authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("TLS authority: no certificate in %s", file)
	}
	return pool, nil
}

func (t TLS) check() error {
	if t.Mode != TLSOff && t.Config == nil {
		return errors.New("nbd: TLS requires a configuration")
	}
	return nil
}

// asConn lets TLS run over any byte stream.
func asConn(rw io.ReadWriter) net.Conn {
	if nc, ok := rw.(net.Conn); ok {
		return nc
	}
	return bareConn{rw}
}

// bareConn is a net.Conn without addresses and deadlines.
type bareConn struct{ io.ReadWriter }

func (b bareConn) Close() error { closeStream(b.ReadWriter); return nil }

func (bareConn) LocalAddr() net.Addr              { return nil }
func (bareConn) RemoteAddr() net.Addr             { return nil }
func (bareConn) SetDeadline(time.Time) error      { return nil }
func (bareConn) SetReadDeadline(time.Time) error  { return nil }
func (bareConn) SetWriteDeadline(time.Time) error { return nil }
