package thin

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/internal/invariants"
)

func TestBlockSizesAndIDs(t *testing.T) {
	for i, size := range []uint64{128, 256, 384, 640, 1152, 2048, 99968, 1 << 20, 1<<21 - 128, 1 << 21} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := newRig(t)
			r.Disk("d").Resize(10*size + 77)
			r.pool = r.Device("pool", fmt.Sprintf("0 %d thin-pool m d %d 0 1 skip_block_zeroing", 10*size+77, size))
			id := []int{0, 1<<24 - 1, 1 << 23, 12345}[i%4]
			r.msg("create_thin %d", id)
			d := r.Device("t", fmt.Sprintf("0 %d thin /dev/mapper/pool %d", 7*size-5, id))
			r.Write(d, size-4, 8, 1)    // over a border
			r.Write(d, 7*size-13, 8, 2) // the end
			r.Lines(d, dm.Info, fmt.Sprintf("0 %d thin %d %d", 7*size-5, 3*size, 7*size-1))
			r.Suspend(d, false)
			r.msg("create_snap %d %d", id^1, id)
			r.Resume(d)
			r.Do(d, blk.Discard, 0, 7*size-5, 0, blk.OK)
			// The last block is not covered entirely.
			r.Lines(d, dm.Info, fmt.Sprintf("0 %d thin %d %d", 7*size-5, size, 7*size-1))
			s := r.Device("s", fmt.Sprintf("0 %d thin /dev/mapper/pool %d", 7*size, id^1))
			r.Want(s, size-4, 8, size-4, 1)
			r.Want(s, 7*size-13, 8, 7*size-13, 2)
			r.usage(3)
		})
	}
}

func TestThousandEmptyThins(t *testing.T) {
	r := newRig(t)
	r.Disk("m").Resize(1 << 15)
	r.start(64)
	for i := range 1000 {
		r.msg("create_thin %d", i*16001)
	}
	var ds []*dm.Device
	for i := range 1000 {
		d := r.Device(fmt.Sprint("t", i), fmt.Sprintf("0 8192 thin /dev/mapper/pool %d", i*16001))
		r.Lines(d, dm.Info, "0 8192 thin 0 -")
		ds = append(ds, d)
	}
	r.usage(0)
	for _, i := range []int{0, 1, 500, 999} {
		r.Write(ds[i], 0, 8, uint64(i+1))
		r.Want(ds[i], 0, 8, 0, uint64(i+1))
	}
	for i := range 1000 {
		r.Must(ds[i].Close())
		r.msg("delete %d", i*16001)
	}
	r.usage(0)
	r.msg("create_thin 0")
}

func TestThousandRecursiveSnapshots(t *testing.T) {
	r := newRig(t)
	r.Disk("m").Resize(1 << 15)
	r.start(2000)
	d := r.thin(0, 8)
	n := 1000
	for i := range n {
		r.Write(d, uint64(i%8)*bs, 8, uint64(i+1))
		s := r.snapshot(d, i+1, i)
		r.Must(d.Close())
		d = s
	}
	r.usage(uint64(n))
	for _, id := range []int{n, n / 2, 10, 3} {
		s := d
		if id != n {
			s = r.open(id, 8)
		}
		// A volume was written once more after it had been created.
		top := min(id, n-1)
		for b := range min(8, top+1) {
			last := top - (top-b)%8
			r.Want(s, uint64(b)*bs, 8, uint64(b)*bs, uint64(last+1))
		}
	}
}

// Six threads break the sharing of six snapshots of one volume at once.
func TestSixThreadsBreakSharing(t *testing.T) {
	blktest.Leaks(t)
	blocks, rounds := uint64(64), 2
	if invariants.Enabled {
		blocks = 24
	}
	w := newBusyPool(t, env.Real())
	w.blocks, w.volBlocks = 8*blocks, blocks
	w.data, w.meta = memdev.New(8*blocks*bs), memdev.New(1<<15)
	w.must(w.start())
	origin, err := w.create(0, false, nil)
	w.must(err)
	for b := range blocks {
		w.write(origin, b*bs, bs, 0)
	}
	var wg waitAll
	wg.init(w.e)
	for i := range 6 {
		v, err := w.create(i+1, false, origin)
		w.must(err)
		wg.start(func(_ string, fn func()) { go fn() }, "", func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				for _, b := range r.Perm(int(blocks)) {
					at := uint64(b)*bs + r.Uint64N(bs-8)
					if st := w.write(v, at, 8, 0); st != blk.OK {
						t.Error(st)
					}
					w.read(v, uint64(b)*bs, bs)
				}
			}
		})
	}
	wg.wait()
	for b := range blocks {
		w.read(origin, b*bs, bs)
	}
	if f := w.status(); f[2] != fmt.Sprintf("%d/%d", 7*blocks, 8*blocks) {
		t.Errorf("status %v: want every block of 7 volumes its own", f)
	}
	w.stop()
	w.again(t, w.meta, w.data).verify(false, true)
}
