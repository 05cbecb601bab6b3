package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/env"
	"udm/test/need"
)

// TestSnapshotsKeepTheirMoments makes a file system on an origin, copies files to
// it and checks it, while two snapshots are read in a loop over NBD: one of before
// the file system, one of right after. Each stays, byte for byte, what the origin
// was when it was taken. It takes the right to open /dev/fuse, but no root.
func TestSnapshotsKeepTheirMoments(t *testing.T) {
	need.Tools(t, "mkfs.ext4", "debugfs", "e2fsck", "fusermount3")
	need.Open(t, "/dev/fuse")
	for _, stores := range [][2]string{{"P 8", "N 128"}, {"P 64", "PO 16"}} {
		t.Run(stores[0]+" "+stores[1], func(t *testing.T) { moments(newRig(t), stores) })
	}
}

const momentSize = 24 // MiB

func moments(r *rig, stores [2]string) {
	r.must(os.WriteFile(filepath.Join(r.dir, "a"), noise(momentSize*mib, 1), 0o600))
	r.create("real", momentSize*perMiB, "linear %s 0", filepath.Join(r.dir, "a"))
	r.create("disk", momentSize*perMiB, "snapshot-origin /dev/mapper/real")
	dir := r.TempDir()
	r.udm("mount", dir)
	disk := filepath.Join(dir, "disk")

	before := r.moment("before", stores[0])
	sh(r.T, "mkfs.ext4", "-q", "-F", "-E", "nodiscard", disk)
	made := r.moment("made", stores[1])
	text, back := filepath.Join(r.dir, "text"), filepath.Join(r.dir, "back")
	size := 6 * mib
	if testing.Short() { // it takes long: debugfs writes 4 KiB at a time
		size = 2 * mib
	}
	r.must(os.WriteFile(text, noise(size, 2), 0o600))
	for i := range 2 {
		name := fmt.Sprint("text", i)
		sh(r.T, "debugfs", "-w", "-R", "write "+text+" "+name, disk)
		sh(r.T, "e2fsck", "-fn", disk)
		sh(r.T, "debugfs", "-R", "dump "+name+" "+back, disk)
		sh(r.T, "cmp", text, back)
	}
	for _, m := range []*moment{before, made} {
		r.must(m.end())
		r.must(m.readAll())
		r.Logf("%s: read %d times while the origin changed; %s", m.name, m.rounds, r.status(m.name))
	}
	now, err := os.ReadFile(filepath.Join(r.dir, "a"))
	r.must(err)
	if bytes.Equal(now, made.want) {
		r.Error("the origin has not changed")
	}
	r.must(errors.Join(before.client.Close(), made.client.Close()))
	r.udm("unmount", dir)
}

// noise is n random bytes.
func noise(n int, seed byte) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(p) // never fails
	return p
}

// moment is a snapshot that is being read.
type moment struct {
	name   string
	want   []byte // what the origin held when it was taken
	client *nbdclient.Client
	rounds int // how often all of it was read; belongs to the reader until its end
	err    error
	first  chan bool // closed after the first round, or when err is set
	done   sync.WaitGroup

	mu   sync.Mutex
	stop bool // guarded by mu
}

// moment takes a snapshot of the disk, notes what it is to hold, starts to read
// it, and waits until all of it was read once.
func (r *rig) moment(name, store string) *moment {
	r.Helper()
	m := &moment{name: name, first: make(chan bool)}
	var err error
	cow := r.file(name+".cow", momentSize+8)
	r.whileSuspended("disk", func() {
		m.want, err = os.ReadFile(filepath.Join(r.dir, "a"))
		r.must(err)
		r.create(name, momentSize*perMiB, "snapshot /dev/mapper/real %s %s", cow, store)
	})
	uri := "nbd+unix:///" + name + "?socket=" + filepath.Join(r.root, "nbd.sock")
	m.client, err = nbdclient.DialURI(context.Background(), uri, nbdclient.Options{})
	r.must(err)
	r.Cleanup(func() { _ = m.end() })
	m.done.Go(m.read)
	<-m.first
	return m
}

// read reads the snapshot until it is told to stop or finds a difference.
func (m *moment) read() {
	for m.err = m.readAll(); m.err == nil && !m.stopped(); m.err = m.readAll() {
		if m.rounds++; m.rounds == 1 {
			close(m.first)
		}
	}
	if m.rounds == 0 {
		close(m.first)
	}
}

// readAll reads all of the snapshot in pieces of many sizes.
func (m *moment) readAll() error {
	p := make([]byte, mib)
	for at := 0; at < len(m.want); {
		n := min(len(m.want)-at, (1+rand.IntN(len(p)/4096))*4096)
		if err := blk.ReadSectors(env.Real(), m.client, p[:n], uint64(at/sector)); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if !bytes.Equal(p[:n], m.want[at:at+n]) {
			return fmt.Errorf("%s: bytes %d to %d are not what they were", m.name, at, at+n)
		}
		at += n
	}
	return nil
}

func (m *moment) stopped() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stop
}

// end stops the reader and tells what it found.
func (m *moment) end() error {
	m.mu.Lock()
	m.stop = true
	m.mu.Unlock()
	m.done.Wait()
	return m.err
}
