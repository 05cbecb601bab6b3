package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
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
	fullBlock   = 128     // sectors of a block of the pool
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

// fullPools are pools of 64 MiB on a file system of 12 MiB.
var fullPools = []struct {
	name string
	make func(p *fullPool) error
	// sparse: the metadata are in a sparse file, too, so that a commit may have to wait.
	sparse bool
}{
	{"whole metadata", func(p *fullPool) error { return p.create(0) }, false},
	{"sparse metadata", func(p *fullPool) error { return p.create(128 << 20) }, true},
	{"without zeroing", (*fullPool).createWithoutZeroing, false},
}

// TestPoolOnAFullFileSystem fills the file system of a pool's sparse files under load.
// Writes to new blocks wait, all else goes on, and the status says why; with space they
// go on by themselves. What was flushed is there after the daemon was killed.
func TestPoolOnAFullFileSystem(t *testing.T) {
	need.Root(t)
	for _, k := range fullPools {
		t.Run(k.name, func(t *testing.T) { testFullPool(t, k.make, k.sparse) })
	}
}

func testFullPool(t *testing.T, create func(*fullPool) error, sparse bool) {
	p := &fullPool{rig: newRig(t), dir: small(t, "12m")}
	other := filepath.Join(p.dir, "other")
	p.must(os.WriteFile(other, make([]byte, 4<<20), 0o600))
	ctx := context.Background()
	p.must(create(p))
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
	p.writeMapped()
	if sparse {
		p.fillMetadata(other)
	} else {
		p.must(blk.FlushDevice(env.Real(), p.client))
	}
	p.check()
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

func (p *fullPool) create(metadata uint64) error {
	return p.rig.client.CreatePool(context.Background(), volume.PoolSpec{Name: "pool", Size: 64 << 20, Metadata: metadata, Dir: p.dir})
}

func (p *fullPool) createWithoutZeroing() error {
	data, meta := filepath.Join(p.dir, "pool.data"), filepath.Join(p.dir, "pool.metadata")
	p.must(os.WriteFile(meta, make([]byte, 2<<20), 0o600))
	p.must(os.WriteFile(data, nil, 0o600))
	p.must(os.Truncate(data, 64<<20))
	_, err := p.rig.client.Create(context.Background(), ctl.Create{Name: "pool",
		Table: fmt.Sprintf("0 %d thin-pool %s %s %d 0 1 skip_block_zeroing", 64<<11, meta, data, fullBlock)})
	return err
}

// fillMetadata takes the last space for a file, and makes volumes until the metadata
// find none. That one is not there then.
func (p *fullPool) fillMetadata(file string) {
	p.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	p.must(err)
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	p.must(f.Close())
	err = nil
	for i := 0; err == nil && i < 1000; i++ {
		err = p.rig.client.CreateVolume(context.Background(), ctl.CreateVolume{Pool: "pool", Name: fmt.Sprint("v", i), Size: fullVolume})
	}
	if !errors.Is(err, syscall.ENOSPC) {
		p.Fatalf("the last of many volumes: %v", err)
	}
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

// writeMapped writes the blocks of which something is written: they have their space.
func (p *fullPool) writeMapped() {
	p.Helper()
	n := 0
	for first := 0; first < len(p.pieces); first += fullBlock / fullPiece {
		block := p.pieces[first : first+fullBlock/fullPiece]
		for i := range block {
			if block[i].Load() {
				at := uint64(first) * fullPiece
				p.must(blk.WriteSectors(env.Real(), p.client, blktest.Pattern(at, fullBlock, 1), at, 0))
				n++
				break
			}
		}
	}
	if n == 0 {
		p.Error("nothing was written before the file system was full")
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
