//go:build linux

package csi

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"udm/containers/internal/rig"
)

// load writes numbered blocks to a file or device, each with a checksum, over and over until
// it is stopped; what was synced must be there.
type load struct {
	t      testing.TB
	path   string
	synced atomic.Int64
	stop   atomic.Bool
	done   chan error
}

const (
	loadBlock  = 4096
	loadBlocks = 1 << 16
	syncEvery  = 16
)

func startLoad(t testing.TB, path string) *load {
	l := &load{t: t, path: path, done: make(chan error, 1)}
	go func() { l.done <- l.run() }()
	l.more()
	return l
}

func block(i int64) []byte {
	p := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(i)), loadBlock/8)
	sum := sha256.Sum256(p[32:])
	copy(p, sum[:])
	return p
}

func (l *load) run() (err error) {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for i := int64(0); !l.stop.Load() && err == nil; i++ {
		at := i % loadBlocks
		if _, err = f.WriteAt(block(at), at*loadBlock); err == nil && i%syncEvery == 0 {
			if err = f.Sync(); err == nil {
				l.synced.Store(i)
			}
		}
	}
	return err
}

// last is the last block that must be there.
func (l *load) last() int64 { return min(l.synced.Load(), loadBlocks-1) }

// more waits until the load has done more.
func (l *load) more() {
	l.t.Helper()
	want := l.synced.Load() + 4*syncEvery
	rig.Until(l.t, "the load goes on", func() bool {
		if len(l.done) > 0 {
			l.t.Fatalf("the load failed: %v", <-l.done)
		}
		return l.synced.Load() >= want
	})
}

// end stops the load, which has had no error.
func (l *load) end() {
	l.t.Helper()
	l.stop.Store(true)
	if err := <-l.done; err != nil {
		l.t.Errorf("the load failed: %v", err)
	}
}

// verify checks that a file or device has all blocks up to one.
func verify(t testing.TB, path string, last int64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := make([]byte, loadBlock)
	for i := range last + 1 {
		if _, err := io.ReadFull(f, p); err != nil || !bytes.Equal(p, block(i)) {
			t.Fatalf("%s lacks block %d of %d: %v", path, i, last, err)
		}
	}
}

// kinds are the kinds of volumes that carry a load.
var kinds = map[string]*csi.VolumeCapability{"ext4": mounting, "xfs": xfs, "block": raw}

// loadAt is where the load of a published volume goes.
func loadAt(at string, c *csi.VolumeCapability) string {
	if c == raw {
		return at
	}
	return filepath.Join(at, "load")
}

// A published volume carries a load while it is expanded, a snapshot is taken, the daemon is
// replaced by another process, and restarted with a keeper beside it. Nobody gets an error,
// the volume has all that was synced, and the snapshot what was synced before it.
func TestLoad(t *testing.T) {
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, "node-1")
			n.Keep()
			v := n.create("v", gig, nil)
			at := n.publish(v, c)
			l := startLoad(t, loadAt(at, c))
			n.expandUnderLoad(v, at, c)
			before := l.last()
			s := n.take("s", v)
			l.more()
			for _, end := range []func(){n.Replace, n.Restart, n.Replace, n.Restart} {
				end()
				n.open("node-1", n.Client)
				l.more()
			}
			l.end()
			n.unpublish(v)
			at = n.publish(v, c)
			verify(t, loadAt(at, c), l.last())
			if total := n.total(v, at); total < 2*gig {
				t.Errorf("%d bytes after the next stage", total)
			}
			n.unpublish(v)

			w := n.create("w", 4*gig, ofSnapshot(s)) // larger than the snapshot
			at = n.publish(w, c)
			verify(t, loadAt(at, c), before)
			if total := n.total(w, at); total < 3*gig {
				t.Errorf("%d bytes after a restore to a larger volume", total)
			}
			n.unpublish(w)
		})
	}
}

func (n *node) expandUnderLoad(v, at string, c *csi.VolumeCapability) {
	n.t.Helper()
	_, err := n.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{VolumeId: v, CapacityRange: &csi.CapacityRange{RequiredBytes: 3 * gig}, VolumeCapability: c})
	n.ok(err)
	_, err = n.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: v, VolumePath: at, VolumeCapability: c})
	may := c != mounting || mayGrow(n.t)
	if may != (err == nil) {
		n.t.Errorf("NodeExpandVolume: %v", err)
	}
	if total := n.total(v, at); (total > 2*gig) != may {
		n.t.Errorf("%d bytes after the expansion", total)
	}
}

// total is the size of a published volume, as its user sees it.
func (n *node) total(id, at string) int64 {
	n.t.Helper()
	stats, err := n.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: at})
	n.ok(err)
	return stats.Usage[0].Total
}

// inPod runs a program in a mount namespace of its own, from which mounts are seen outside,
// as they are from a pod whose volumes have the propagation Bidirectional.
func inPod(t testing.TB) []string {
	t.Helper()
	rig.Needs(t, "unshare")
	rig.Build(t, "..", "udm/cmd/udm") // not where the root will be
	shared := rig.Dir(t)
	if err := errors.Join(unix.Mount(shared, shared, "", unix.MS_BIND, ""), unix.Mount("", shared, "", unix.MS_SHARED, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(shared, unix.MNT_DETACH) })
	t.Setenv("TMPDIR", shared) // where the daemon's root will be
	return []string{"unshare", "--mount", "--propagation", "unchanged"}
}

// A daemon in a pod is restarted in another pod, and the load goes on.
func TestPod(t *testing.T) {
	n := newNode(t, "node-1", inPod(t)...)
	n.Keep()
	v := n.create("v", gig, nil)
	at := n.publish(v, mounting)
	l := startLoad(t, loadAt(at, mounting))
	for range 3 {
		n.Restart()
		n.open("node-1", n.Client)
		l.more()
	}
	l.end()
	n.unpublish(v)
	as, err := n.Client.Attachments(ctx)
	if n.ok(err); len(as) > 0 {
		t.Errorf("%v are left", as)
	}
	verify(t, loadAt(n.publish(v, mounting), mounting), l.last())
}

// After the death of a daemon a volume that was published gives errors, because the last
// writes may be lost. It is published again without being staged again, as the kubelet
// does for the next pod, and has what was synced.
func TestDaemonDies(t *testing.T) {
	n := newNode(t, "node-1")
	n.Keep()
	for name, c := range kinds {
		v := n.create(name, gig, nil)
		at := n.publish(v, c)
		l := startLoad(t, loadAt(at, c))
		n.Kill()
		if err := <-l.done; err == nil {
			t.Errorf("%s: the load had no error", name)
		}
		n.Start()
		n.open("node-1", n.Client)
		again := n.publishAt(v, filepath.Join(n.dir, "pods", "again-"+v), c)
		verify(t, loadAt(again, c), l.last())
		_, err := n.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v, TargetPath: again})
		n.ok(err)
		n.unpublish(v)
	}
}
