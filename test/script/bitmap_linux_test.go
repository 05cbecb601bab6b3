package script

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"udm/ctl"
	"udm/test/need"
	"udm/volume"
)

// TestDirtyBitmap compares what qemu-img reads as a dirty bitmap with the answer of udm
// changes, sector by sector, for each pair of snapshots of a volume that is written, zeroed
// and discarded, and for its clone with a store.
func TestDirtyBitmap(t *testing.T) {
	need.Tools(t, "qemu-img", "qemu-io")
	b := &bitmaps{t: t, root: filepath.Join(shortDir(t), "r")}
	startFor(t, b.root)
	b.client = ctl.NewClient(b.root)
	t.Cleanup(b.client.Close)
	run(t, b.root, "pool", "create", "p", "--size", "64M")
	run(t, b.root, "volume", "create", "p", "disk", "--size", fmt.Sprint(bitmapBytes))
	names := []string{}
	for i := range 4 {
		b.change("disk", uint64(i))
		name := fmt.Sprint("s", i)
		run(t, b.root, "snapshot", "disk", name)
		for _, since := range names {
			b.compare(name, since)
		}
		names = append(names, name)
	}
	b.change("disk", 8)
	b.compare("disk", "s3")
	image := filepath.Join(b.root, "image")
	must(t, os.WriteFile(image, make([]byte, bitmapBytes), 0o600))
	run(t, b.root, "clone", image, "clone")
	b.change("clone", 9)
	b.compare("clone", volume.BaseCheckpoint)
}

const bitmapBytes = 8 << 20

type bitmaps struct {
	t      *testing.T
	root   string
	client *ctl.Client
}

func (b *bitmaps) server() string {
	return "server.type=unix,server.path=" + filepath.Join(b.root, ctl.NBDSocket)
}

// change writes, zeroes and discards at random places.
func (b *bitmaps) change(name string, seed uint64) {
	b.t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	args := []string{"--image-opts", "driver=nbd,export=" + name + "," + b.server()}
	for range 12 {
		at := rng.IntN(bitmapBytes) &^ 511
		length := min(512+rng.IntN(300<<10)&^511, bitmapBytes-at)
		how := []string{"write -P 7", "write -P 9", "write -z", "discard"}[rng.IntN(4)]
		args = append(args, "-c", fmt.Sprint(how, " ", at, " ", length))
	}
	if out, err := exec.Command("qemu-io", args...).CombinedOutput(); err != nil {
		b.t.Fatalf("%v: %s", err, out)
	}
}

// compare compares the sectors that both say have changed.
func (b *bitmaps) compare(name, since string) {
	b.t.Helper()
	ours, theirs := b.changed(name, since), b.dirty(name, since)
	n := 0
	for i := range ours {
		if ours[i] != theirs[i] {
			b.t.Errorf("sector %d of %s since %s: changed: %t, dirty: %t", i, name, since, ours[i], theirs[i])
			return
		}
		if ours[i] {
			n++
		}
	}
	if n == 0 || n == len(ours) {
		b.t.Errorf("%s since %s: %d sectors have changed", name, since, n)
	}
}

func (b *bitmaps) changed(name, since string) (sectors [bitmapBytes / 512]bool) {
	b.t.Helper()
	c, err := b.client.Changes(context.Background(), volume.ChangesSpec{Name: name, Since: since})
	must(b.t, err)
	if c.Next != c.Sectors {
		b.t.Fatalf("%s since %s: only up to %d", name, since, c.Next)
	}
	for _, e := range c.Extents {
		for i := range e.Sectors {
			sectors[e.Sector+i] = true
		}
	}
	return sectors
}

// dirty is what qemu-img maps; what it takes for holes is dirty.
func (b *bitmaps) dirty(name, since string) (sectors [bitmapBytes / 512]bool) {
	b.t.Helper()
	opts := "driver=nbd,export=" + name + "," + b.server() + ",x-dirty-bitmap=qemu:dirty-bitmap:" + since
	out, err := exec.Command("qemu-img", "map", "--output=json", "--image-opts", opts).Output()
	must(b.t, err)
	var list []struct {
		Start, Length int
		Data          bool
	}
	must(b.t, json.Unmarshal(out, &list))
	for _, e := range list {
		for i := e.Start / 512; i < (e.Start+e.Length)/512; i++ {
			sectors[i] = !e.Data
		}
	}
	return sectors
}
