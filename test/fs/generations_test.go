package fs

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
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
// and is sound. The streams have little more than the blocks that have changed. Each is
// archived, too, for which no more is read, and by which the archive with all that is in it
// does not grow more, and restored at the end.
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
	all := map[string]generation{}
	store := filepath.Join(r.dir, "store")
	r.must(os.Mkdir(store, 0o700))
	r.udm("archive", "init", store)
	for i := range n {
		durable := c.start()
		name := fmt.Sprint("g", i)
		r.udm("snapshot", "disk", name)
		var stream bytes.Buffer
		r.must(r.client.Send(ctx, volume.SendSpec{Name: name, From: last}, &stream))
		g := generation{sum: r.content(name), changed: r.changed(name, last)}
		sent, changed = sent+stream.Len(), changed+g.changed
		spec := volume.ReceiveSpec{Name: "far-" + name, Pool: "far"}
		if last != "" {
			spec.Pool, spec.Base = "", "far-"+last
		}
		_, err := r.client.Receive(ctx, spec, &stream)
		r.must(err)
		if g.sum != r.content(spec.Name) {
			r.Fatalf("%s does not hold what %s does", spec.Name, name)
		}
		before := r.size(store)
		r.udm("archive", "create", store, name)
		g.stored = r.size(store) - before
		all[name] = g
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
	r.archived(store, all)
}

// generation is what a snapshot holds, and bytes: that have changed since the one before,
// and by which the archive has grown.
type generation struct {
	sum             [sha256.Size]byte
	changed, stored uint64
}

// archived sees that an archive has snapshots as they were, and what each has cost.
func (r *rig) archived(store string, all map[string]generation) {
	r.Helper()
	a, err := place.OpenArchive(r.Context(), store, "")
	r.must(err)
	list, err := a.List(r.Context())
	r.must(err)
	if len(list) != len(all) {
		r.Fatalf("%d of %d snapshots are archived", len(list), len(all))
	}
	var read, stored float64 // the highest ratios
	for _, i := range list {
		g := all[i.Name]
		read, stored = max(read, float64(i.Read)/float64(g.changed)), max(stored, float64(g.stored)/float64(g.changed))
		file := filepath.Join(r.dir, "restored")
		r.udm("archive", "restore", store, i.Name, "--file", file)
		p, err := os.ReadFile(file)
		r.must(err)
		if sha256.Sum256(p) != g.sum {
			r.Errorf("%s is restored with another content", i.Name)
		}
		r.must(os.Remove(file))
	}
	r.Logf("of what a generation has changed, at most %.3f times was read to archive it, and %.3f times stored", read, stored)
	if read > 1.1 || stored > 1.1 {
		r.Error("more than a tenth more")
	}
}

// size is the bytes of all files in a folder.
func (r *rig) size(dir string) (sum uint64) {
	r.Helper()
	r.must(filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			sum += uint64(info.Size())
		}
		return err
	}))
	return sum
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
