package fs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/filedev"
	"udm/blk/nbdclient"
	"udm/ctl"
	"udm/env"
	"udm/targets/thin/thintools"
	"udm/test/need"
	"udm/volume"
)

const (
	fullVolume  = 8 << 20 // bytes: more than there is space for at first
	fullPiece   = 8       // sectors of one write
	fullWriters = 4
)

// fullPool is a pool over sparse files on a small file system, and its volume as a
// client of NBD sees it. Writer k writes every fourth piece, in an order of its own.
type fullPool struct {
	*rig
	dir    string // of the pool
	client *nbdclient.Client
	pieces [fullVolume / blk.SectorSize / fullPiece]atomic.Bool // that are written
}

// TestPoolOnAFullFileSystem fills the file system of a pool's sparse files under load.
// Writes wait, all else goes on, and the status says why; with space they go on by
// themselves. What was flushed is there after the daemon was killed.
func TestPoolOnAFullFileSystem(t *testing.T) {
	need.Root(t)
	p := &fullPool{rig: newRig(t), dir: small(t, "12m")}
	other := filepath.Join(p.dir, "other")
	p.must(os.WriteFile(other, make([]byte, 4<<20), 0o600))
	ctx := context.Background()
	p.must(p.rig.client.CreatePool(ctx, volume.PoolSpec{Name: "pool", Size: 64 << 20, Dir: p.dir}))
	p.must(p.rig.client.CreateVolume(ctx, ctl.CreateVolume{Pool: "pool", Name: "v", Size: fullVolume}))
	p.dial()
	var writers sync.WaitGroup
	for k := range uint64(fullWriters) {
		writers.Go(func() { p.write(k) })
	}
	p.awaitMode("out_of_data_space")
	if told := p.udm("status", "pool"); !strings.Contains(told, "low on space: its file system has ") {
		t.Errorf("nothing tells of the file system:\n%s", told)
	}
	p.check()
	p.must(blk.FlushDevice(env.Real(), p.client))
	p.must(os.Remove(other))
	writers.Wait()
	p.must(blk.FlushDevice(env.Real(), p.client))
	p.awaitMode("rw")
	p.must(p.client.Close())
	p.kill()
	p.start()
	p.dial()
	p.check()
	p.must(p.client.Close())
	p.stop()
	meta, err := filedev.Open(filepath.Join(p.dir, "pool.metadata"), filedev.Options{ReadOnly: true})
	p.must(err)
	report, err := thintools.Check(env.Real(), meta, thintools.CheckOptions{})
	p.must(err)
	p.must(report.Err())
	p.must(meta.Close())
}

// small mounts a small file system until the test ends.
func small(t *testing.T, size string) string {
	dir := filepath.Join(t.TempDir(), "small")
	must(t, os.Mkdir(dir, 0o700))
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size))
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (p *fullPool) dial() {
	p.Helper()
	var err error
	p.client, err = nbdclient.Dial(context.Background(), "unix", filepath.Join(p.root, ctl.NBDSocket), nbdclient.Options{Export: "v"})
	p.must(err)
}

func (p *fullPool) write(k uint64) {
	n := uint64(len(p.pieces))
	for i := k; i < n; i += fullWriters {
		piece := i * 389 % n
		at := piece * fullPiece
		if err := blk.WriteSectors(env.Real(), p.client, blktest.Pattern(at, fullPiece, 1), at, 0); err != nil {
			p.Errorf("write: %v", err)
			return
		}
		p.pieces[piece].Store(true)
	}
}

// check reads all that was written.
func (p *fullPool) check() {
	p.Helper()
	data := make([]byte, fullPiece*blk.SectorSize)
	for i := range p.pieces {
		at := uint64(i) * fullPiece
		if p.pieces[i].Load() {
			p.must(blk.ReadSectors(env.Real(), p.client, data, at))
			p.must(blktest.Check(data, at, 1))
		}
	}
}

// awaitMode waits until the pool is in a mode; each change is an event.
func (p *fullPool) awaitMode(mode string) {
	p.Helper()
	pool := ctl.Ref{Name: "pool"}
	for {
		d, err := p.rig.client.Device(context.Background(), ctl.Query{Ref: pool, With: []ctl.With{ctl.WithStatus}, Noflush: true})
		p.must(err)
		f := strings.Fields(d.Status[0].Params)
		if len(f) < 8 || f[7] != "-" {
			p.Fatalf("the pool is %s", fmt.Sprint(f))
		}
		if f[4] == mode {
			return
		}
		_, err = p.rig.client.Wait(context.Background(), ctl.Wait{Ref: pool, Event: d.Event})
		p.must(err)
	}
}
