package thin

import (
	"fmt"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
)

// external makes a volume of 32 blocks over disk o of size sectors filled with
// the pattern 7.
func external(t *testing.T, size uint64, features ...string) (*rig, *dm.Device) {
	r := newRig(t)
	r.Disk("o").Resize(size)
	r.Must(blk.WriteSectors(r.Sim, r.Disk("o"), blktest.Pattern(0, size, 7), 0, 0))
	// Old data of the pool must not be visible.
	r.Disk("d").Resize(64 * bs)
	r.Must(blk.WriteSectors(r.Sim, r.Disk("d"), blktest.Pattern(0, 64*bs, 66), 0, 0))
	r.start(64, features...)
	r.msg("create_thin 5")
	return r, r.Device("e", fmt.Sprintf("0 %d thin /dev/mapper/pool 5 o", 32*bs))
}

// wantOrigin checks sectors that have not been written.
func (r *rig) wantOrigin(d *dm.Device, sector, sectors, size uint64) {
	r.Helper()
	end := min(sector+sectors, max(size, sector))
	if end > sector {
		r.Want(d, sector, end-sector, sector, 7)
	}
	if rest := sector + sectors - end; rest > 0 {
		r.Want(d, end, rest, end, 0)
	}
}

func TestExternalOriginsOfAnySize(t *testing.T) {
	for _, size := range []uint64{0, 1, 127, 128, 129, 1000, 31*bs + 5, 32 * bs, 40 * bs} {
		for _, write := range [][2]uint64{{0, 8}, {0, bs}, {120, 8}, {7*bs + 100, 8}, {31*bs + 3, 4}, {7 * bs, bs}} {
			t.Run(fmt.Sprint(size, write), func(t *testing.T) {
				r, d := external(t, max(size, 1))
				if size == 0 {
					size = 1
				}
				r.wantOrigin(d, 0, 32*bs, size)
				w, n := write[0], write[1]
				r.Write(d, w, n, 8)
				block := w / bs * bs
				r.Want(d, w, n, w, 8)
				if w > block {
					r.wantOrigin(d, block, w-block, size)
				}
				if w+n < block+bs {
					r.wantOrigin(d, w+n, block+bs-w-n, size)
				}
				r.wantOrigin(d, 32*bs-8, 4, size)
				r.usage(1)
				p := make([]byte, 512*size)
				r.Must(blk.ReadSectors(r.Sim, r.Disk("o"), p, 0))
				r.Must(blktest.Check(p, 0, 7))
				r.Do(d, blk.Discard, block, bs, 0, blk.OK)
				r.wantOrigin(d, block, bs, size)
			})
		}
	}
}

func TestReadsAcrossTheOriginsEnd(t *testing.T) {
	r, d := external(t, 1000)
	for _, x := range [][2]uint64{{996, 8}, {999, 2}, {1000, 8}, {992, 8}, {900, 200}} {
		r.wantOrigin(d, x[0], x[1], 1000)
		r.Gate("o").Forget()
	}
	r.Disk("o").Resize(1500)
	r.wantOrigin(d, 900, 90, 1000)
	r.Suspend(d, false)
	r.Resume(d) // the size is looked at again
	x := r.Do(d, blk.Read, 1400, 10, 9, blk.OK)
	r.Must(blktest.Check(x.Data, 1400, 0))
	r.Trace("o", r.Gate("o").Trace())
	if got := len(r.Gate("o").Submitted()); got != 0 {
		t.Fatal(got)
	}
}

// Without zeroing, the rest of a block that is copied in part keeps the old content of
// the data device.
func TestPartialCopyWithoutZeroing(t *testing.T) {
	r, d := external(t, 1000, "skip_block_zeroing")
	r.Write(d, 900, 8, 8)
	r.Want(d, 896, 4, 896, 7)
	r.Want(d, 908, 92, 908, 7)
	r.Want(d, 1000, 24, 1000-896, 66)
	r.Write(d, 2000, 8, 8)
	r.Want(d, 2008, 8, 2008-15*bs+bs, 66)
}

func TestFailedCopyFromTheOrigin(t *testing.T) {
	r, d := external(t, 1000)
	r.Gate("o").Shut()
	x := r.Submit(d, blk.Write, 0, 0, 8, 1)
	y := r.Submit(d, blk.Read, 0, 0, 8, 1)
	r.Gate("o").Fail(r.held("o", "read 0+128")[0].Index, blk.IOErr)
	r.Sim.Run()
	r.Done(x, blk.IOErr)
	r.Done(y, blk.IOErr)
	r.Gate("o").Open()
	r.wantOrigin(d, 0, 8, 1000)
	r.usage(0)
}

func TestSnapshotOfAVolumeWithAnOrigin(t *testing.T) {
	r, d := external(t, 1000)
	r.Write(d, 0, 8, 1)
	r.Suspend(d, false)
	r.msg("create_snap 6 5")
	r.Resume(d)
	s := r.Device("s", fmt.Sprintf("0 %d thin /dev/mapper/pool 6 o", 32*bs))
	r.Write(d, 8, 8, 2)
	r.Write(s, 512, 8, 3)
	r.Want(s, 0, 8, 0, 1)
	r.Want(s, 8, 8, 8, 7)
	r.Want(s, 520, 8, 520, 7)
	r.Want(d, 512, 8, 512, 7)
	r.usage(3)
}
