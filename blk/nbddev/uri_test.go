package nbddev_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/blk/nbddev"
	"udm/env"
	"udm/export"
	"udm/export/nbd"
)

func TestParse(t *testing.T) {
	for uri, want := range map[string]string{
		"nbd://host/disk":                          "",
		"nbds://host/disk":                         "",
		"nbds+unix:///?socket=s":                   "tls-hostname",
		"nbds+unix:///?socket=s&tls-hostname=h":    "",
		"nbds+unix:///?socket=s&tls-verify-peer=0": "",
		"nbds://h/?tls-verify-peer=perhaps":        "neither 0 nor 1",
		"nbds://h/?tls-psk-file=f":                 "use certificates",
		"nbds://h/?tls-type=psk":                   "use x509",
		"nbd://host/?timeout=30&connections=2":     "",
		"nbd://host/?timeout=0":                    "not a number of seconds",
		"nbd://host/?connections=17":               "from 1 to 16",
		"nbd://host/?path=1":                       "",
		"nbd://host/?path=yes":                     "neither 0 nor 1",
		"nbd://host/?timeuot=1":                    "unknown parameter",
		"nbd+unix:///disk":                         "not an NBD URI",
		"nbd+vsock://2/disk":                       "not an NBD URI",
	} {
		_, err := nbddev.Parse(uri)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", uri, err, want)
		}
	}
	o, err := nbddev.Parse("nbd://h/a?timeout=30&connections=2")
	if err != nil || o.Timeout != 30*time.Second || o.Connections != 2 || o.Export != "a" || o.TLS != nil {
		t.Errorf("%+v, %v", o, err)
	}
}

// certificates writes an authority's and returns a server's for a host name.
func certificates(t *testing.T, dir, host string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "ca-cert.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	blktest.Leaks(t)
	dir := t.TempDir()
	cert := certificates(t, dir, "disks.example")
	s, err := nbd.New(nbd.Config{
		Exports: nbd.Fixed{{Info: nbd.Info{Name: "disk"}, Device: export.Check(memdev.New(64))}},
		TLS:     nbd.TLS{Mode: nbd.TLSRequire, Config: &tls.Config{Certificates: []tls.Certificate{cert}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- s.Serve(l) }()
	for params, want := range map[string]string{
		"&tls-hostname=disks.example&tls-certificates=" + url.QueryEscape(dir): "",
		"&tls-hostname=other.example&tls-certificates=" + url.QueryEscape(dir): "disks.example, not other.example",
		"&tls-hostname=disks.example":                                          "unknown authority",
		"&tls-verify-peer=0":                                                   "",
		"&tls-verify-peer=0&tls-certificates=/dev/null/x":                      "not a directory",
	} {
		o, err := nbddev.Parse("nbds+unix:///disk?socket=" + url.QueryEscape(socket) + params)
		if err != nil {
			t.Fatal(err)
		}
		d, err := nbddev.Open(env.Real(), o)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", params, err, want)
		}
		if err == nil {
			converse(t, d)
			d.Close()
		}
	}
	s.Shutdown(context.Background())
	<-done
}
