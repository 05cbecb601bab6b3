package script

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"udm/ctl"
	"udm/test/kernel/nbdclient"
	"udm/test/need"
)

// authority signs certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	a := &authority{t: t}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "udm test"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour)}
	a.cert, a.key = tmpl, a.newKey()
	a.cert = a.sign(tmpl, &a.key.PublicKey)
	a.write(dir, "ca-cert.pem", "CERTIFICATE", a.cert.Raw)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) sign(tmpl *x509.Certificate, pub *ecdsa.PublicKey) *x509.Certificate {
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *authority) write(dir, name, kind string, der []byte) string {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes WHO-cert.pem and WHO-key.pem, as libnbd and qemu look for them.
func (a *authority) issue(dir, who string) (cert, key string) {
	k := a.newKey()
	c := a.sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: who}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}, &k.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.write(dir, who+"-cert.pem", "CERTIFICATE", c.Raw), a.write(dir, who+"-key.pem", "PRIVATE KEY", der)
}

var listening = regexp.MustCompile(`front_end=nbd-tcp addresses=\S*:(\d+)`)

// port is the one that a daemon says it listens on.
func (d *daemon) port(t *testing.T) string {
	t.Helper()
	m := listening.FindStringSubmatch(d.started)
	if m == nil {
		t.Fatalf("the daemon does not listen:\n%s", d.started)
	}
	return m[1]
}

// TestTLS: on TCP with certificates, clients with one of the right authority are
// served, others are not.
func TestTLS(t *testing.T) {
	need.Tools(t, "nbdinfo")
	root, dir, other := filepath.Join(shortDir(t), "r"), t.TempDir(), t.TempDir()
	a := newAuthority(t, dir)
	cert, key := a.issue(dir, "server")
	a.issue(dir, "client")
	newAuthority(t, other).issue(other, "client")
	d := startFor(t, root, "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key, "--tls-ca", filepath.Join(dir, "ca-cert.pem"))
	run(t, root, "create", "disk", "--table", "0 2048 linear mem:1M 0")
	at := "127.0.0.1:" + d.port(t) + "/disk"
	for uri, serves := range map[string]bool{
		"nbds://" + at + "?tls-certificates=" + dir:   true,
		"nbds://" + at + "?tls-certificates=" + other: false,
		"nbd://" + at: false,
	} {
		out, err := exec.Command("nbdinfo", "--size", uri).CombinedOutput()
		if (err == nil) != serves {
			t.Errorf("%s: %v\n%s", uri, err, out)
		}
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}

// TestReadOnlyDaemon: no client can write, and each connection counts.
func TestReadOnlyDaemon(t *testing.T) {
	root := filepath.Join(shortDir(t), "r")
	d := startFor(t, root, "--read-only", "--max-connections", "2")
	run(t, root, "create", "disk", "--table", "0 2048 linear mem:1M 0")
	socket := filepath.Join(root, ctl.NBDSocket)
	var cs []*nbdclient.Conn
	for range 2 {
		c, err := nbdclient.Dial(socket, "disk")
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, c)
	}
	if c, err := nbdclient.Dial(socket, "disk"); err == nil {
		t.Error("a third connection is served")
		c.Close()
	}
	buf := make([]byte, 512)
	if err := cs[0].Write(buf, 0); err == nil {
		t.Error("a write to a read-only daemon succeeds")
	}
	if err := cs[1].Read(buf, 0); err != nil {
		t.Error(err)
	}
	if out := run(t, root, "dmsetup", "info", "-c", "--noheadings", "-o", "open", "disk"); out != "2\n" {
		t.Errorf("two clients count as %s", out)
	}
	for _, c := range cs {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	run(t, root, "remove", "disk")
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
