package fs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"udm/archive/place"
	"udm/blk"
	"udm/blk/nbdclient"
	"udm/ctl"
	"udm/env"
	"udm/volume"
)

// TestGenerations sends generations of a mounted file system that is being written
// to another pool, each as what has changed since the one before. There each holds
// what the snapshot does, bit by bit; it mounts, has every file that was durable,
// and is sound. The streams have little more than the blocks that have changed. All are
// archived, too, for which no more is read and stored, and restored at the end.
func TestGenerations(t *testing.T) {
	needs(t, "mkfs.ext4", "e2fsck", "mount")
	n := 50
	if testing.Short() {
		n = 6
	}
	generations(newRig(t), n)
}

const generationSize = 32 // MiB

func generations(r *rig, n int) {
	ctx := context.Background()
	for _, pool := range []string{"near", "far"} {
		r.udm("pool", "create", pool, "--size", "1G")
	}
	r.udm("volume", "create", "near", "disk", "--size", fmt.Sprint(generationSize, "M"))
	f := filesystems[0]
	device := r.attach("disk")
	f.make(r, device)
	dir := r.mount(device, "")
	r.must(os.Mkdir(filepath.Join(dir, "durable"), 0o700))
	r.must(syncPath(dir))
	c := &churn{w: writer{dir: filepath.Join(dir, "durable")}, random: rand.New(rand.NewPCG(1, 1))}
	last, sent, changed := "", 0, uint64(0)
	store := filepath.Join(r.dir, "store")
	r.must(os.Mkdir(store, 0o700))
	r.udm("archive", "init", store)
	sums := map[string][sha256.Size]byte{}
	for i := range n {
		durable := c.start()
		name := fmt.Sprint("g", i)
		r.udm("snapshot", "disk", name)
		var stream bytes.Buffer
		r.must(r.client.Send(ctx, volume.SendSpec{Name: name, From: last}, &stream))
		sent, changed = sent+stream.Len(), changed+r.changed(name, last)
		spec := volume.ReceiveSpec{Name: "far-" + name, Pool: "far"}
		if last != "" {
			spec.Pool, spec.Base = "", "far-"+last
		}
		_, err := r.client.Receive(ctx, spec, &stream)
		r.must(err)
		if sums[name] = r.content(name); sums[name] != r.content(spec.Name) {
			r.Fatalf("%s does not hold what %s does", spec.Name, name)
		}
		r.udm("archive", "create", store, name)
		r.lookIntoCopy(f, spec.Name, durable)
		if last != "" {
			r.udm("remove", last)
			r.udm("remove", "far-"+last)
		}
		last = name
		r.must(c.end())
	}
	r.Logf("%d generations: %d bytes have changed, %d were sent; %d files are durable", n, changed, sent, c.files)
	if uint64(sent) > changed*11/10 {
		r.Errorf("%d bytes were sent for %d that have changed", sent, changed)
	}
	r.unmount(dir)
	f.fsck(r, device)
	r.archived(store, changed, sums)
}

// archived sees that an archive has snapshots as they were, and what it cost.
func (r *rig) archived(store string, changed uint64, sums map[string][sha256.Size]byte) {
	r.Helper()
	a, err := place.OpenArchive(r.Context(), store, "")
	r.must(err)
	list, err := a.List(r.Context())
	r.must(err)
	var read, stored uint64
	for _, i := range list {
		read, stored = read+i.Read, stored+i.Stored
		file := filepath.Join(r.dir, "restored")
		r.udm("archive", "restore", store, i.Name, "--file", file)
		p, err := os.ReadFile(file)
		r.must(err)
		if sha256.Sum256(p) != sums[i.Name] {
			r.Errorf("%s is restored with another content", i.Name)
		}
		r.must(os.Remove(file))
	}
	r.Logf("archived: %d bytes read, %d stored", read, stored)
	if len(list) != len(sums) || read > changed*11/10 || stored > changed*11/10 {
		r.Errorf("%d of %d snapshots are archived", len(list), len(sums))
	}
}

// changed is how many bytes a device has changed.
func (r *rig) changed(name, since string) (sum uint64) {
	r.Helper()
	s := volume.ChangesSpec{Name: name, Since: since}
	for {
		c, err := r.client.Changes(context.Background(), s)
		r.must(err)
		for _, e := range c.Extents {
			sum += e.Sectors * sector
		}
		if s.Sector, s.Of = c.Next, c.Of; c.Next == c.Sectors {
			return sum
		}
	}
}

// content is a sum of what a device holds.
func (r *rig) content(name string) [sha256.Size]byte {
	r.Helper()
	d, err := nbdclient.DialURI(context.Background(), "nbd+unix:///"+name+"?socket="+filepath.Join(r.root, ctl.NBDSocket), nbdclient.Options{})
	r.must(err)
	p := make([]byte, generationSize*mib)
	for at := 0; at < len(p); at += mib {
		r.must(blk.ReadSectors(env.Real(), d, p[at:at+mib], uint64(at/sector)))
	}
	r.must(d.Close())
	return sha256.Sum256(p)
}

// lookIntoCopy mounts a snapshot of a device, which replays its journal, and finds n
// durable files there.
func (r *rig) lookIntoCopy(f filesystem, name string, n int64) {
	r.Helper()
	r.udm("snapshot", name, "copy")
	device := r.attach("copy")
	dir := r.mount(device, f.snapshotOpts)
	r.must(check(dir, n))
	r.unmount(dir)
	f.fsck(r, device)
	r.detach("copy")
	r.udm("remove", "copy")
}

// churn is some work on a file system for each generation: files that are durable one
// after the other, and others that are written over and removed.
type churn struct {
	w      writer
	random *rand.Rand
	files  int64
	done   sync.WaitGroup
	err    error
}

// start starts the work, and returns in the middle of it how many files are durable.
func (c *churn) start() int64 {
	some := make(chan int64, 1)
	c.done.Go(func() {
		for k := range 6 {
			if c.err = errors.Join(c.err, c.w.one(c.files), c.scribble()); c.err == nil {
				c.files++
			}
			if k == 2 {
				some <- c.files
			}
		}
	})
	return <-some
}

func (c *churn) scribble() error {
	path := filepath.Join(filepath.Dir(c.w.dir), fmt.Sprint("churn", c.random.IntN(60)))
	if c.random.IntN(3) == 0 {
		_ = os.Remove(path) // which may not be there
		return nil
	}
	return os.WriteFile(path, noise(c.random.IntN(300<<10), byte(c.files)), 0o600)
}

func (c *churn) end() error {
	c.done.Wait()
	return c.err
}
