//go:build linux

package csi

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"udm/ctl"
)

const gig = 1 << 30

// mayGrow tells whether ext4 may grow while it is mounted.
func mayGrow(t testing.TB) bool {
	t.Helper()
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&h, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}

// A file system is frozen while a snapshot of it is taken: the clone needs no replay. A
// driver that was killed meanwhile leaves it frozen, and the next one thaws it.
func TestFrozen(t *testing.T) {
	n := newNode(t, "node-1")
	v := n.create("v", gig, nil)
	at := n.publish(v, mounting)
	n.ok(os.WriteFile(filepath.Join(at, "f"), []byte("not synced"), 0o600))
	name, _ := n.local(v)
	if err := n.frozen(ctx, []string{name}, func() error {
		if err := mountCall(at, fiFreeze); !errors.Is(err, unix.EBUSY) {
			t.Errorf("freezing it again: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s := n.take("s", v)
	w := n.publish(n.create("w", gig, ofSnapshot(s)), mounting)
	if text, err := os.ReadFile(filepath.Join(w, "f")); err != nil || string(text) != "not synced" {
		t.Errorf("%q, %v", text, err)
	}

	n.ok(n.setFrozen(ctx, name, true))
	n.ok(mountCall(at, fiFreeze))
	n.open("node-1", n.Client)
	n.ok(n.Thaw(ctx))
	n.ok(os.WriteFile(filepath.Join(at, "g"), nil, 0o600))
	if _, r, err := n.object(ctx, isVolume, name); err != nil || r.Frozen {
		t.Errorf("%v, %v", r, err)
	}
}

// certificates are those of two nodes and of somebody else.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"127.0.0.1"}, IsCA: true, BasicConstraintsValid: true,
		IPAddresses: nil, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	c.IPAddresses = append(c.IPAddresses, []byte{127, 0, 0, 1})
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	authority := x509.NewCertPool()
	authority.AddCert(parsed)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, RootCAs: authority, ClientCAs: authority,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

// A snapshot is restored on another node, over TLS, by who has a certificate; a stream
// that is cut off makes no volume.
func TestAnotherNode(t *testing.T) {
	a, b := newNode(t, "a"), newNode(t, "b")
	v := a.create("v", gig, nil)
	at := a.publish(v, mounting)
	want := bytes.Repeat([]byte("what was there "), 100_000)
	a.ok(os.WriteFile(filepath.Join(at, "f"), want, 0o600))
	s := a.take("s", v)

	secure := certificate(t)
	server := httptest.NewUnstartedServer(a.Peer())
	server.TLS = secure
	server.StartTLS()
	defer server.Close()
	b.Peers = map[string]string{"a": server.Listener.Addr().String()}
	for name, fetch := range map[string]Fetch{"no certificate": nil, "another authority's": FetchWith(certificate(t))} {
		b.Fetch = fetch
		if _, err := b.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "w", VolumeCapabilities: []*csi.VolumeCapability{mounting}, VolumeContentSource: ofSnapshot(s)}); err == nil {
			t.Errorf("%s: the snapshot was restored", name)
		}
	}
	whole := FetchWith(secure)
	b.Fetch = func(c context.Context, address, device string) (io.ReadCloser, error) {
		r, err := whole(c, address, device)
		return cut{io.LimitReader(r, 100_000), r}, err
	}
	if _, err := b.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "w", VolumeCapabilities: []*csi.VolumeCapability{mounting}, VolumeContentSource: ofSnapshot(s)}); err == nil {
		t.Error("a stream that is cut off made a volume")
	}
	if left := b.Objects(t, devicePrefix); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
	b.Fetch = whole
	w := b.create("w", 2*gig, ofSnapshot(s))
	if again := b.create("w", 2*gig, ofSnapshot(s)); again != w {
		t.Errorf("%s, then %s", w, again)
	}
	if left := b.Objects(t, devicePrefix); len(left) != 1 {
		t.Errorf("%v are there, want one", left)
	}
	at = b.publish(w, mounting)
	if got, err := os.ReadFile(filepath.Join(at, "f")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

type cut struct {
	io.Reader
	io.Closer
}

// What the metadata RPCs tell is what a copy needs: applied to zeroes, or to the snapshot
// before, it makes the snapshot.
func TestMetadata(t *testing.T) {
	n := newNode(t, "node-1")
	v := n.create("v", 64<<20, nil)
	device := n.publish(v, raw)
	write := func(at int64, p []byte) {
		t.Helper()
		f, err := os.OpenFile(device, os.O_WRONLY, 0)
		n.ok(err)
		_, err = f.WriteAt(p, at)
		n.ok(errors.Join(err, f.Sync(), f.Close()))
	}
	write(1<<20, bytes.Repeat([]byte("first"), 100_000))
	write(32<<20, bytes.Repeat([]byte("stays"), 100_000))
	s1 := n.take("s1", v)
	write(1<<20+4096, bytes.Repeat([]byte("second"), 50_000))
	write(63<<20, []byte("end"))
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	n.ok(err)
	n.ok(unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 32<<20, 1<<18))
	n.ok(errors.Join(f.Sync(), f.Close()))
	s2 := n.take("s2", v)
	first, second := n.content(n.create("c1", 64<<20, ofSnapshot(s1))), n.content(n.create("c2", 64<<20, ofSnapshot(s2)))

	c := csi.NewSnapshotMetadataClient(n.conn())
	allocated, err := c.GetMetadataAllocated(ctx, &csi.GetMetadataAllocatedRequest{SnapshotId: s2, MaxResults: 3})
	n.ok(err)
	got := make([]byte, len(second))
	told := apply(t, got, second, func() ([]*csi.BlockMetadata, error) { r, err := allocated.Recv(); return r.GetBlockMetadata(), err })
	if !bytes.Equal(got, second) || told > 4<<20 {
		t.Errorf("the allocated blocks, %d bytes, do not make the snapshot", told)
	}
	delta, err := c.GetMetadataDelta(ctx, &csi.GetMetadataDeltaRequest{BaseSnapshotId: s1, TargetSnapshotId: s2, MaxResults: 1})
	n.ok(err)
	got = slices.Clone(first)
	told = apply(t, got, second, func() ([]*csi.BlockMetadata, error) { r, err := delta.Recv(); return r.GetBlockMetadata(), err })
	if !bytes.Equal(got, second) || bytes.Equal(first, second) || told > 2<<20 {
		t.Errorf("the changed blocks, %d bytes, do not make the snapshot", told)
	}
	for want, r := range map[codes.Code]*csi.GetMetadataAllocatedRequest{
		codes.NotFound:        {SnapshotId: "none@node-1"},
		codes.InvalidArgument: {SnapshotId: s1, StartingOffset: -1},
		codes.OutOfRange:      {SnapshotId: s1, StartingOffset: 1 << 40},
	} {
		stream, err := c.GetMetadataAllocated(ctx, r)
		n.ok(err)
		if _, err := stream.Recv(); status.Code(err) != want {
			t.Errorf("%v: %v", r, err)
		}
	}
}

// apply copies what blocks tell, ascending, and returns how much that was.
func apply(t *testing.T, to, from []byte, next func() ([]*csi.BlockMetadata, error)) (told int64) {
	t.Helper()
	for end := int64(0); ; {
		list, err := next()
		if errors.Is(err, io.EOF) {
			return told
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range list {
			if b.ByteOffset < end {
				t.Fatalf("%v does not come after %d", b, end)
			}
			end = b.ByteOffset + b.SizeBytes
			told += int64(copy(to[b.ByteOffset:end], from[b.ByteOffset:end]))
		}
	}
}

// content is what a raw block volume holds.
func (n *node) content(id string) []byte {
	n.t.Helper()
	text, err := os.ReadFile(n.publish(id, raw))
	n.ok(err)
	return text
}

// An ephemeral volume lives as long as it is published.
func TestEphemeral(t *testing.T) {
	n := newNode(t, "node-1")
	target := filepath.Join(n.dir, "pod")
	r := &csi.NodePublishVolumeRequest{VolumeId: "csi-0123", TargetPath: target, VolumeCapability: mounting,
		VolumeContext: map[string]string{"csi.storage.k8s.io/ephemeral": "true", "size": "200Mi"}}
	for range 2 {
		_, err := n.NodePublishVolume(ctx, r)
		n.ok(err)
	}
	n.ok(os.WriteFile(filepath.Join(target, "f"), []byte("text"), 0o600))
	if names := n.Objects(t, devicePrefix); len(names) != 1 {
		t.Errorf("%v", names)
	}
	for range 2 {
		if _, err := n.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: "csi-0123", TargetPath: target}); err != nil && status.Code(err) != codes.NotFound {
			t.Error(err)
		}
	}
	if names := n.Objects(t, devicePrefix); len(names) > 0 {
		t.Errorf("%v are left", names)
	}
}

// One resizer asks any driver: that of the volume's node expands it.
func TestExpandedFromElsewhere(t *testing.T) {
	n := newNode(t, "node-1")
	v := n.create("v", gig, nil)
	at := n.publish(v, xfs)
	other := New(Config{Node: "node-2", Log: n.Driver.Log}, n.Client)
	defer other.Close()
	r := &csi.CapacityRange{RequiredBytes: 2 * gig}
	told, err := other.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: v, CapacityRange: r, VolumeCapability: xfs})
	if n.ok(err); told.CapacityBytes != 2*gig || !told.NodeExpansionRequired {
		t.Errorf("%v", told)
	}
	_, err = n.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: v, VolumePath: at, CapacityRange: r, VolumeCapability: xfs})
	n.ok(err)
	stats, err := n.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v, VolumePath: at})
	if n.ok(err); stats.Usage[0].Total < gig+gig/2 {
		t.Errorf("%v", stats.Usage)
	}
}

// What cannot be is told by the code that Kubernetes acts on.
func TestRefused(t *testing.T) {
	n := newNode(t, "node-1")
	v := n.create("v", gig, nil)
	for name, c := range map[string]struct {
		want codes.Code
		do   func() error
	}{
		"another node": {codes.ResourceExhausted, func() error {
			_, err := n.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "w", VolumeCapabilities: []*csi.VolumeCapability{mounting},
				AccessibilityRequirements: &csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{TopologyKey: "node-2"}}}}})
			return err
		}},
		"smaller than its source": {codes.OutOfRange, func() error {
			_, err := n.CreateVolume(ctx, &csi.CreateVolumeRequest{Name: "w", VolumeCapabilities: []*csi.VolumeCapability{mounting},
				CapacityRange: &csi.CapacityRange{LimitBytes: gig / 2}, VolumeContentSource: ofVolume(v)})
			return err
		}},
		"not a number": {codes.InvalidArgument, func() error {
			_, err := n.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{VolumeId: v, MutableParameters: map[string]string{"readIOPS": "many"}})
			return err
		}},
		"somebody else's data": {codes.Unavailable, func() error {
			w := n.create("foreign", gig, nil)
			n.ok(os.WriteFile(n.publish(w, raw), []byte(strings.Repeat("not a file system", 100)), 0))
			_, err := n.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: w, StagingTargetPath: filepath.Join(n.dir, "x"), VolumeCapability: mounting})
			return err
		}},
	} {
		if err := c.do(); status.Code(err) != c.want {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	_, err := n.ControllerModifyVolume(ctx, &csi.ControllerModifyVolumeRequest{VolumeId: v, MutableParameters: map[string]string{"writeBytesPerSecond": "1048576"}})
	n.ok(err)
	name, _ := n.local(v)
	limits, err := n.Client.Limits(ctx)
	if n.ok(err); !slices.ContainsFunc(limits, func(l ctl.Limit) bool { return l.Device == name && l.Write.Bytes == 1<<20 }) {
		t.Errorf("%v", limits)
	}
}
