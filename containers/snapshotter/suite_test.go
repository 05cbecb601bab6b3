//go:build linux

package snapshotter

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/testsuite"

	"udm/containers/filesystem"
	"udm/containers/internal/rig"
	"udm/containers/pool"
)

func TestMain(m *testing.M) { rig.Main(m) }

// bed is a daemon with a pool for snapshotters.
type bed struct {
	*rig.Daemon
	t     testing.TB
	count atomic.Int32
	image string // an image with ext4 and a file f
}

func newBed(t testing.TB) *bed {
	t.Helper()
	rig.Needs(t, "mkfs.ext4", "mkfs.xfs", "debugfs", "e2fsck")
	b := &bed{Daemon: rig.StartDaemon(t), t: t}
	b.image = b.makeImage("mkfs.ext4", "-q", "-d")
	return b
}

func (b *bed) config() Config {
	return Config{
		Pool:   pool.Config{Name: "p", First: 1 << 30, Most: 64 << 30},
		Prefix: fmt.Sprintf("s%d", b.count.Add(1)), Files: filepath.Join(filepath.Dir(b.Root), "files"),
		FS: filesystem.Ext4, Size: 1 << 30, Offer: Loop, Log: slog.New(slog.DiscardHandler),
	}
}

// TestSuite is containerd's own.
func TestSuite(t *testing.T) {
	b := newBed(t)
	testsuite.SnapshotterSuite(t, "udm", func(_ context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
		s := New(b.config(), b.Client)
		return s, s.Close, nil
	})
}
