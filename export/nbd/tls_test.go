package nbd_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/checkdev"
	"udm/blk/memdev"
	"udm/blk/nbdclient"
	"udm/export"
	"udm/export/nbd"
	"udm/internal/nbd/proto"
	"udm/test/need"
)

// authority writes certificates of a server and of a client to a directory in
// the layout that NBD programs share.
func authority(t *testing.T) (dir string) { return authorityOf(t, newKey) }

// authorityOf is one whose keys are of a kind.
func authorityOf(t *testing.T, newKey func(*testing.T) crypto.Signer) (dir string) {
	dir = t.TempDir()
	key := newKey(t)
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	writeCert(t, dir, "ca", ca, ca, key, key)
	for i, name := range []string{"server", "client"} {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(2 + i)), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
			DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
		writeCert(t, dir, name, leaf, ca, newKey(t), key)
	}
	return dir
}

func newKey(t *testing.T) crypto.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newRSAKey(t *testing.T) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEd25519Key(t *testing.T) crypto.Signer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func writeCert(t *testing.T, dir, name string, cert, parent *x509.Certificate, key, parentKey crypto.Signer) {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{name + "-cert.pem": {Type: "CERTIFICATE", Bytes: der}, name + "-key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// clientTLS is the configuration of a client with or without a certificate.
func clientTLS(t *testing.T, dir string, withCert bool) *tls.Config {
	pool, err := nbd.LoadCA(filepath.Join(dir, "ca-cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c := &tls.Config{RootCAs: pool, ServerName: "localhost"}
	if withCert {
		cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "client-cert.pem"), filepath.Join(dir, "client-key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{cert}
	}
	return c
}

func serverTLS(t *testing.T, dir string, mode nbd.TLSMode, verify bool) nbd.TLS {
	c, err := nbd.LoadTLS(dir, verify)
	if err != nil {
		t.Fatal(err)
	}
	return nbd.TLS{Mode: mode, Config: c}
}

func TestTLSModes(t *testing.T) {
	dir := authority(t)
	for _, c := range []struct {
		name                   string
		tls                    nbd.TLS
		plain, noCert, withTLS bool
	}{
		{"off", nbd.TLS{}, true, false, false},
		{"on", serverTLS(t, dir, nbd.TLSOn, false), true, true, true},
		{"on, verified", serverTLS(t, dir, nbd.TLSOn, true), true, false, true},
		{"required", serverTLS(t, dir, nbd.TLSRequire, false), false, true, true},
		{"required, verified", serverTLS(t, dir, nbd.TLSRequire, true), false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			blktest.Leaks(t)
			_, addr := serve(t, nbd.Config{Exports: disk(), TLS: c.tls})
			for how, want := range map[string]bool{"plain": c.plain, "no certificate": c.noCert, "certificate": c.withTLS} {
				var o nbdclient.Options
				if how != "plain" {
					o.TLS = clientTLS(t, dir, how == "certificate")
				}
				if got := attaches(addr, o); got != want {
					t.Errorf("%s: attached %v, want %v", how, got, want)
				}
			}
		})
	}
}

// Clients that need no older version are served with TLS 1.3.
func TestTLSVersion(t *testing.T) {
	dir := authorityOf(t, newRSAKey)
	_, addr := serve(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSRequire, true)})
	c := clientTLS(t, dir, true)
	c.MinVersion = tls.VersionTLS13
	if !attaches(addr, nbdclient.Options{TLS: c}) {
		t.Error("not served")
	}
}

func attaches(addr string, o nbdclient.Options) bool {
	c, err := nbdclient.Dial(context.Background(), "unix", addr, o)
	if err != nil {
		return false
	}
	// With TLS 1.3 a client learns of a refused certificate at its next read.
	ok := c.Limits().Size == diskSize/blk.SectorSize
	c.Close()
	return ok
}

func TestConformanceOverTLS(t *testing.T) {
	dir := authority(t)
	blktest.TestDevice(t, func(t *testing.T) blk.Device {
		d := memdev.New(2<<20/blk.SectorSize, memdev.Volatile)
		_, addr := serve(t, nbd.Config{Exports: nbd.Fixed{{Device: export.Check(d), Extents: d.Extents, SparseReads: true}}, TLS: serverTLS(t, dir, nbd.TLSRequire, true)})
		return checkdev.New(dial(t, addr, nbdclient.Options{TLS: clientTLS(t, dir, true)}), checkdev.Options{Preflush: true})
	})
}

func TestOptionsAroundTLS(t *testing.T) {
	dir := authority(t)
	tape := func() *tape {
		return newTape(fixed).option(proto.OptList).option(proto.OptGo, str("disk"), u16s(0)).option(99).option(proto.OptStructuredReply).option(proto.OptAbort)
	}
	said, err := tape().play(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSRequire, false)})
	if err != nil {
		t.Error(err)
	}
	expect(t, said, "3 tls-reqd", "7 tls-reqd", "99 tls-reqd", "8 tls-reqd", "2 ack")

	plainNewstyle := newTape(0).option(proto.OptStartTLS)
	said, _ = plainNewstyle.play(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSOn, false)})
	expect(t, said, "5 policy")
	if _, err := newTape(fixed).option(proto.OptExportName, []byte("disk")).play(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSRequire, false)}); err == nil {
		t.Error("EXPORT_NAME went on without TLS")
	}
	if _, err := newTape(fixed).option(proto.OptStartTLS).option(proto.OptList).play(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSOn, false)}); err == nil {
		t.Error("plain text was taken for TLS")
	}
}

// STARTTLS discards everything negotiated in plain text, and TLS can start only
// once.
func TestStartTLSForgets(t *testing.T) {
	blktest.Leaks(t)
	dir := authority(t)
	_, addr := serve(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSOn, false)})
	nc, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	before := newTape(fixed).option(proto.OptStructuredReply).option(proto.OptSetMetaContext, str("disk"), u32(1), str(proto.ContextAllocation)).option(proto.OptStartTLS)
	nc.Write(before.in.Bytes())
	io.ReadFull(nc, make([]byte, 18+20+20+4+len(proto.ContextAllocation)+20+20))
	tc := tls.Client(nc, clientTLS(t, dir, false))
	after := newTape(fixed)
	after.in.Reset()
	after.option(proto.OptStartTLS).option(proto.OptSetMetaContext, str("disk"), u32(0)).option(proto.OptGo, str("disk"), u16s(0)).request(proto.CmdRead, 0, 0, 512)
	after.request(proto.CmdDisc, 0, 0, 0)
	tc.Write(after.in.Bytes())
	out, _ := io.ReadAll(tc)
	hello := be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, proto.MagicInit), proto.MagicOption), 3)
	said, err := after.decode(append(hello, out...))
	if err != nil {
		t.Error(err)
	}
	expect(t, said, "5 invalid", "10 invalid", goExport, goBlock, "7 ack", "#1 data 0*512")
}

func TestTLSWithNbdinfo(t *testing.T) {
	need.Tools(t, "nbdinfo")
	dir := authority(t)
	_, addr := serve(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSRequire, true)})
	uri := "nbds+unix:///disk?socket=" + addr + "&tls-certificates=" + dir
	if out := run(t, "", "nbdinfo", uri); !strings.Contains(out, "with TLS") {
		t.Error(out)
	}
	for _, file := range []string{"client-cert.pem", "client-key.pem"} {
		if err := os.Remove(filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := tryRun(t, "", "nbdinfo", uri); err == nil {
		t.Errorf("without a certificate:\n%s", out)
	}
	if out, err := tryRun(t, "", "nbdinfo", "nbd+unix:///disk?socket="+addr); err == nil {
		t.Errorf("without TLS:\n%s", out)
	}
}

// Clients that use GnuTLS show a certificate of each kind of key, and are served.
func TestTLSWithGnuTLS(t *testing.T) {
	need.Tools(t, "nbdinfo", "nbdcopy", "qemu-img")
	made := 0
	mixed := func(t *testing.T) crypto.Signer {
		if made++; made%3 == 0 {
			return newRSAKey(t) // the client's
		}
		return newKey(t)
	}
	for name, newKey := range map[string]func(*testing.T) crypto.Signer{"RSA": newRSAKey, "ECDSA": newKey, "mixed": mixed, "Ed25519": newEd25519Key} {
		t.Run(name, func(t *testing.T) {
			dir := authorityOf(t, newKey)
			_, addr := serve(t, nbd.Config{Exports: disk(), TLS: serverTLS(t, dir, nbd.TLSRequire, true)})
			uri := "nbds+unix:///disk?socket=" + addr + "&tls-certificates=" + dir
			run(t, "", "nbdinfo", uri)
			run(t, "", "nbdcopy", uri, filepath.Join(t.TempDir(), "copy"))
			run(t, "", "qemu-img", "info", "--object", "tls-creds-x509,id=tls,endpoint=client,dir="+dir,
				"--image-opts", "driver=nbd,server.type=unix,server.path="+addr+",export=disk,tls-creds=tls,tls-hostname=localhost")
		})
	}
}

func TestLoadTLSNamesWhatIsWrong(t *testing.T) {
	dir := authority(t)
	if err := os.WriteFile(filepath.Join(dir, "ca-cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := nbd.LoadTLS(dir, true); err == nil || !strings.Contains(err.Error(), "ca-cert.pem") {
		t.Error(err)
	}
	if _, err := nbd.LoadTLS(t.TempDir(), false); err == nil {
		t.Error("loaded certificates from an empty directory")
	}
}
