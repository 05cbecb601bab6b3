package volume

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"udm/blk"
)

// changesOf returns all changes, requested part by part.
func (r *rig) changesOf(name, since string) Changes {
	r.t.Helper()
	s := ChangesSpec{Name: name, Since: since}
	c, err := r.m.Changes(ctx, s)
	r.ok(err)
	for c.Next < c.Sectors {
		next, err := r.m.Changes(ctx, ChangesSpec{Name: name, Since: since, Sector: c.Next, Of: c.Of})
		r.ok(err)
		c.Extents, c.Next = append(c.Extents, next.Extents...), next.Next
	}
	return c
}

func (r *rig) holds(name string) []byte {
	r.t.Helper()
	d, err := r.c.Name(name)
	r.ok(err)
	h, err := d.Open(false)
	r.ok(err)
	p := make([]byte, h.Limits().Size*blk.SectorSize)
	r.ok(errors.Join(blk.ReadSectors(r.sim, h, p, 0), h.Close()))
	return p
}

// differ compares reported changes with the actual differences: no difference is missing,
// zeroes are zeroes, and only touched blocks are reported. Beyond the end of a shorter
// object everything counts as changed.
func (r *rig) differ(c Changes, a, b []byte, touched map[uint64]bool) {
	r.t.Helper()
	told := map[uint64]bool{}
	for _, e := range c.Extents {
		for s := e.Sector; s < e.Sector+e.Sectors; s++ {
			told[s] = true
			if p := b[s*512:][:512]; e.Zero && !bytes.Equal(p, make([]byte, 512)) {
				r.t.Fatalf("sector %d is told to be zero and is not", s)
			}
		}
	}
	for s := range c.Sectors {
		is := uint64(len(a)) <= s*512 || !bytes.Equal(a[s*512:][:512], b[s*512:][:512])
		if is && !told[s] {
			r.t.Fatalf("sector %d differs and is not told of: %+v", s, c)
		}
		if told[s] && touched != nil && !touched[s/c.Block] {
			r.t.Fatalf("sector %d is told of, and nobody has touched its block of %d: %+v", s, c.Block, c)
		}
	}
}

// touch does a random write or discard, and records the blocks that it touches.
func (r *rig) touch(name string, rnd *rand.Rand, block uint64, touched map[uint64]bool) {
	d, err := r.c.Name(name)
	r.ok(err)
	size := d.Limits().Size
	at := rnd.Uint64N(size)
	n := 1 + rnd.Uint64N(min(size-at, 40))
	if rnd.IntN(4) == 0 && d.Limits().MaxDiscard > 0 {
		h, err := d.Open(true)
		r.ok(err)
		n = min(size-at, 3*block)
		if st := blk.Do(r.sim, h, &blk.Bio{Op: blk.Discard, Sector: at, Sectors: n}); st != blk.OK {
			r.t.Fatal(st)
		}
		r.ok(h.Close())
	} else {
		r.write(name, at, n, rnd.Uint64())
	}
	for b := at / block; b <= (at+n-1)/block; b++ {
		touched[b] = true
	}
}

// The changes between generations of an object of any kind contain all differences, and no
// blocks that were not touched.
func TestChangesAreWhatDiffers(t *testing.T) {
	for _, of := range []struct {
		name  string
		block uint64
	}{{"w", 128}, {"v", 128}, {"d", chunk}, {"a", chunk}, {"l", chunk}} {
		t.Run(of.name, func(t *testing.T) {
			h := furnished(t)
			r := boot(t, h)
			r.task(func() {
				r.ok(r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 600 << 9}))
				rnd := rand.New(rand.NewPCG(3, uint64(of.name[0])))
				names := []string{"g0", "g1", "g2", "g3", "g4"}
				held, touched := map[string][]byte{}, map[string]map[uint64]bool{}
				for i, name := range names {
					r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: of.name, Names: []string{name}}))
					held[name], touched[name] = r.holds(name), map[uint64]bool{}
					for range rnd.IntN(6) {
						blocks := map[uint64]bool{}
						r.touch(of.name, rnd, of.block, blocks)
						for _, was := range names[:i+1] {
							for b := range blocks {
								touched[was][b] = true
							}
						}
					}
				}
				now := r.holds(of.name)
				for i, was := range names {
					r.differ(r.changesOf(of.name, was), held[was], now, touched[was])
					for _, is := range names[i+1:] {
						r.differ(r.changesOf(is, was), held[was], held[is], touched[was])
					}
				}
				points, err := r.m.Checkpoints("g2")
				r.ok(err)
				for _, want := range append(slices.Delete(slices.Clone(names), 2, 3), of.name) {
					if !slices.Contains(points, want) {
						t.Errorf("checkpoints %v lack %s", points, want)
					}
				}
			})
			r.stop()
		})
	}
}

// Without a checkpoint, the changes since the base are listed, or the whole contents.
func TestChangesSinceTheBase(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		image := r.holds("e")
		r.differ(r.changesOf("e", ""), make([]byte, len(image)), image, nil)
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{"n", "m"}}))
		r.ok(r.m.Clone(ctx, CloneSpec{Base: "/img/j.img", Names: []string{"k"}, Pool: "p"}))
		base := r.holds("m")
		for _, name := range []string{"n", "k"} {
			r.write(name, 17, 3, 5)
			for _, since := range []string{"", BaseCheckpoint} {
				c := r.changesOf(name, since)
				want := []Change{{16, 16, false}}
				if name == "k" {
					want = []Change{{0, 128, false}}
				}
				if !slices.Equal(c.Extents, want) {
					t.Errorf("%s since %q: %+v, want %v", name, since, c, want)
				}
			}
		}
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "n", Names: []string{"ns"}}))
		r.write("n", 60, 3, 5)
		for _, name := range []string{"n", "ns"} {
			r.differ(r.changesOf(name, BaseCheckpoint), base, r.holds(name), map[uint64]bool{1: true, 3: true})
		}
	})
	r.stop()
}

// The range by which an object has grown since a checkpoint counts as changed, also where a
// volume has kept blocks from before it was shrunk.
func TestChangesBehindTheEnd(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		r.ok(r.m.CreateVolume(ctx, VolumeSpec{Pool: "p", Name: "w", Size: 512 << 9}))
		r.write("w", 300, 20, 1)
		r.ok(r.m.Resize(ctx, ResizeSpec{Name: "w", Size: 200 << 9, Shrink: true}))
		r.ok(r.m.Snapshot(ctx, SnapshotSpec{Of: "w", Names: []string{"short"}}))
		r.ok(r.m.Resize(ctx, ResizeSpec{Name: "w", Size: 500 << 9}))
		c := r.changesOf("w", "short")
		if want := []Change{{200, 56, true}, {256, 128, false}, {384, 116, true}}; !slices.Equal(c.Extents, want) {
			t.Errorf("%+v, want %v", c, want)
		}
	})
	r.stop()
}

func TestChangesRefused(t *testing.T) {
	r := boot(t, furnished(t))
	r.task(func() {
		c := r.changesOf("v", "vs")
		r.ok(r.m.Reset(ctx, "v"))
		for _, x := range []struct {
			spec  ChangesSpec
			errno syscall.Errno
			text  string
		}{
			{ChangesSpec{Name: "none"}, syscall.ENXIO, `there is no device named "none"; udm ls lists the devices`},
			{ChangesSpec{Name: "v", Since: "none"}, syscall.ENXIO, `there is no device named "none"; udm ls lists the devices`},
			{ChangesSpec{Name: "v", Since: "vs", Of: c.Of}, syscall.ESTALE, "v or its checkpoint has been replaced; start from the beginning"},
			{ChangesSpec{Name: "p"}, syscall.EINVAL, "p is a pool, whose changes are not known"},
			{ChangesSpec{Name: "v", Since: "d"}, syscall.EINVAL, "d is not a volume of p, so v cannot be compared with it"},
			{ChangesSpec{Name: "d", Since: "f"}, syscall.EINVAL, "d and f have no common base, so they cannot be compared"},
			{ChangesSpec{Name: "e", Since: BaseCheckpoint}, syscall.EINVAL, "e has no base; name a snapshot of it"},
			{ChangesSpec{Name: "d-real"}, syscall.EBUSY, "d-real is part of d; use d instead"},
		} {
			_, err := r.m.Changes(ctx, x.spec)
			if !errors.Is(err, x.errno) || err.Error() != x.text {
				t.Errorf("%+v: %v, want %q", x.spec, err, x.text)
			}
		}
	})
	r.stop()
}
