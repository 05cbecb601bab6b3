package thin

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
)

// changed maps the blocks that a pool reports as changed to 1 (data) or -1 (no data).
func changed(t testing.TB, pool *dm.Device, since *uint32, id uint32) (blocks map[uint64]int, own bool) {
	t.Helper()
	blocks = map[uint64]int{}
	for next, more := uint64(0), true; more; {
		c, err := ChangesSince(pool, since, id, next)
		if err != nil || c.More && c.Next <= next {
			t.Fatalf("from %d: next %d, %v", next, c.Next, err)
		}
		for _, e := range c.Extents {
			for b := e.Sector / bs; b < (e.Sector+e.Sectors)/bs; b++ {
				blocks[b] = 2*bit(e.Data) - 1
			}
		}
		next, more, own = c.Next, c.More, own || c.Own
	}
	return blocks, own
}

func TestChanges(t *testing.T) {
	r := newRig(t)
	r.start(32)
	d := r.thin(0, 16)
	want := func(since, id int, want string, own bool) {
		t.Helper()
		s := new(uint32(since))
		if since < 0 {
			s = nil
		}
		r.Sim.Go("changes", func() {
			got, o := changed(t, r.pool, s, uint32(id))
			if fmt.Sprint(got) != "map["+want+"]" || o != own {
				t.Errorf("since %d, volume %d: %v %v, want %s %v", since, id, got, o, want, own)
			}
		})
		r.Sim.Run()
	}
	for b := range uint64(4) {
		r.Write(d, b*bs, bs, b)
	}
	r.msg("create_snap 1 0")
	want(1, 0, "", false)
	want(-1, 0, "0:1 1:1 2:1 3:1", false)
	r.Write(d, 1*bs+5, 1, 9)
	r.Write(d, 7*bs, 1, 9)
	r.Do(d, blk.Discard, 3*bs, bs, 0, blk.OK)
	r.Do(d, blk.Discard, 9*bs, bs, 0, blk.OK)
	want(1, 0, "1:1 3:-1 7:1", false)
	r.msg("create_snap 2 0")
	r.Write(d, 1*bs+5, 1, 9) // with what it holds: counts
	want(2, 0, "1:1", false)
	want(1, 2, "1:1 3:-1 7:1", false)
	want(2, 1, "1:1 3:1 7:-1", false)
	s := r.open(1, 16)
	r.Write(s, 5*bs, 1, 1)
	want(1, 2, "1:1 3:-1 5:-1 7:1", true)
	r.Do(s, blk.Discard, 0, bs, 0, blk.OK)
	r.Do(s, blk.Discard, 5*bs, bs, 0, blk.OK)
	want(1, 2, "0:1 1:1 3:-1 7:1", true)
	for _, ids := range [][2]uint32{{9, 0}, {0, 9}} {
		r.Sim.Go("changes", func() {
			if _, err := ChangesSince(r.pool, &ids[0], ids[1], 0); !errors.Is(err, syscall.ENODATA) {
				t.Errorf("volumes %v: %v", ids, err)
			}
		})
		r.Sim.Run()
	}
}

// chronicle lists what was done to a volume, in order of completion.
type chronicle struct {
	mu   sync.Mutex
	done []uint64 // blocks; guarded by mu
	open map[uint64]int
}

// enter carries out a bio to a block: the chronicle has it before a suspend of the
// device can end.
func (c *chronicle) enter(w *busyPool, d *dm.Device, b *blk.Bio, block uint64) blk.Status {
	ended := make(chan struct{})
	c.mu.Lock()
	c.open[block]++
	c.mu.Unlock()
	b.End = func(*blk.Bio) {
		c.mu.Lock()
		c.open[block]--
		c.done = append(c.done, block)
		c.mu.Unlock()
		close(ended)
	}
	d.Submit(b)
	<-ended
	return b.Status()
}

// now is the length of the chronicle.
func (c *chronicle) now() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.done)
}

// between returns the blocks of the entries between two lengths of the chronicle.
func (c *chronicle) between(from, to int) map[uint64]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	blocks := map[uint64]bool{}
	for _, b := range c.done[from:to] {
		blocks[b] = true
	}
	return blocks
}

// While writers go on, the changes between snapshots are all blocks that differ and none
// that was not touched; the changes up to now include every write that has ended.
func TestChangesBesideWriters(t *testing.T) {
	const blocks, snapshots = 64, 8
	blktest.Leaks(t)
	w := newBusyPool(t, env.Real())
	w.blocks, w.volBlocks = blocks*(snapshots+2), blocks
	w.data.Resize(w.blocks * bs)
	w.must(w.start())
	v, err := w.create(0, false, nil)
	w.must(err)
	c := &chronicle{open: map[uint64]int{}}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for k := range uint64(writers) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(k, 1))
			for {
				select {
				case <-stop:
					return
				default:
					w.scribble(v.dev, c, r)
				}
			}
		})
	}
	at := make([]int, snapshots+1)
	for id := 1; id <= snapshots; id++ {
		w.must(v.dev.Suspend(ctx, false))
		w.must(w.message("create_snap %d 0", id))
		at[id] = c.now()
		w.must(v.dev.Resume(ctx, false))
		for c.now() < at[id]+12 {
			w.upToNow(c, uint32(id), at[id])
		}
	}
	close(stop)
	wg.Wait()
	for i := 1; i <= snapshots; i++ {
		for j := i + 1; j <= snapshots; j += 1 + bit(invariants.Enabled)*3 {
			w.compare(uint32(i), uint32(j), c.between(at[i], at[j]))
		}
	}
	w.stop()
}

func (w *busyPool) scribble(d *dm.Device, c *chronicle, r *rand.Rand) {
	b := r.Uint64N(w.volBlocks)
	io := &blk.Bio{Op: blk.Discard, Sector: b * bs, Sectors: bs}
	if at := r.Uint64N(bs); r.IntN(4) > 0 {
		io = &blk.Bio{Op: blk.Write, Sector: b*bs + at}
		io.SetData(blktest.Pattern(at, 1+r.Uint64N(bs-at), r.Uint64()))
	}
	if st := c.enter(w, d, io, b); st != blk.OK {
		w.Errorf("%v: %v", io.Op, st)
	}
}

// upToNow checks what has changed since a snapshot, while writers go on.
func (w *busyPool) upToNow(c *chronicle, since uint32, from int) {
	w.Helper()
	before := c.now()
	mapped, _ := changed(w, w.pool, nil, since)
	got, _ := changed(w, w.pool, &since, 0)
	sure := c.between(from, before)
	for b := range sure {
		if _, was := mapped[b]; got[b] == 0 && was {
			w.Errorf("block %d was touched since snapshot %d, and is not told of", b, since)
		}
	}
	c.mu.Lock()
	under := map[uint64]bool{}
	for b, n := range c.open {
		under[b] = n > 0
	}
	c.mu.Unlock()
	all := c.between(from, c.now())
	for b := range got {
		if !all[b] && !under[b] {
			w.Errorf("block %d is told of since snapshot %d, and nobody has touched it", b, since)
		}
	}
}

// compare compares the changes between two snapshots with what they hold.
func (w *busyPool) compare(i, j uint32, touched map[uint64]bool) {
	w.Helper()
	got, own := changed(w, w.pool, &i, j)
	a, b := w.content(i), w.content(j)
	zero := make([]byte, bs*blk.SectorSize)
	for n := range w.volBlocks {
		x, y := a[n*bs*512:][:bs*512], b[n*bs*512:][:bs*512]
		switch {
		case got[n] == 0 && !bytes.Equal(x, y):
			w.Errorf("snapshots %d and %d differ in block %d, which is not told of", i, j, n)
		case got[n] != 0 && !touched[n]:
			w.Errorf("block %d is told of between %d and %d, and nobody has touched it", n, i, j)
		case got[n] < 0 && !bytes.Equal(y, zero):
			w.Errorf("block %d is not mapped in %d, but holds something", n, j)
		}
	}
	if own {
		w.Errorf("nobody has written to snapshot %d", i)
	}
}

func (w *busyPool) content(id uint32) []byte {
	d, err := w.device("content", fmt.Sprintf("0 %d thin /dev/mapper/pool %d", w.volBlocks*bs, id))
	w.must(err)
	p := make([]byte, w.volBlocks*bs*blk.SectorSize)
	w.must(errors.Join(blk.ReadSectors(w.e, d, p, 0), d.Close()))
	return p
}
