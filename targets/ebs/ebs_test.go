package ebs_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/blk/memdev"
	"udm/dm"
	"udm/env"
	"udm/targets/ebs"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
)

var types = []*dm.Type{ebs.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 4096 ebs a 8 1 8")
}

// Sectors on blocks of 4096 bytes, which are on sectors.
func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 8192 ebs a 8 8 1", "0 5000 linear /dev/dm-0 16", "0 4096 ebs /dev/dm-1 8 1")
}

// blocks gives disks blocks of 4096 bytes.
func blocks(l *blk.Limits) { l.LogicalBlock, l.PhysicalBlock, l.MinIO = 4096, 4096, 4096 }

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 64 ebs => EINVAL Invalid argument count
		0 64 ebs a 0 => EINVAL Invalid argument count
		0 64 ebs a 0 1 8 0 => EINVAL Invalid argument count
		0 64 ebs a q 1 => EINVAL Invalid device offset sector
		0 64 ebs a 64 1 => EINVAL Invalid device offset sector
		0 64 ebs a 64 3 => EINVAL Invalid device offset sector
		0 64 ebs a 0 q => EINVAL Invalid emulated block size
		0 64 ebs a 0 0 => EINVAL Invalid emulated block size
		0 64 ebs a 0 3 => EINVAL Invalid emulated block size
		0 64 ebs a 0 16 => EINVAL Invalid emulated block size
		0 64 ebs a 0 65536 => EINVAL Invalid emulated block size
		0 64 ebs a 0 1 0 => EINVAL Invalid underlying block size
		0 64 ebs a 0 1 12 => EINVAL Invalid underlying block size
		0 64 ebs a 0 1 8q => EINVAL Invalid underlying block size
		0 64 ebs /none 0 1 => ENODEV Device lookup failed
		0 64 ebs /none 0 1 7 => EINVAL Invalid underlying block size
		0 64 ebs a 4 1 8 => EINVAL Device offset must be multiple of underlying block size
		0 60 ebs a 0 8 1 => EINVAL len=60 not aligned to h/w logical block size 4096 of 7:0
		0 16384 ebs a 8 1 => EINVAL 7:0 too small for target: start=8, len=16384, dev_size=16384
	`)
	targettest.New(t, types, blocks).Refuses(`
		0 64 ebs a 4 1 => EINVAL Device offset must be multiple of underlying block size
	`)
}

func TestText(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 ebs a 8 65544")
	r.Lines(d, dm.TableText, "0 64 ebs 7:0 8 8")
	r.Lines(d, dm.Info, "0 64 ebs ")
	r.Swap(d, "0 64 ebs a 8 1 8")
	r.Lines(d, dm.TableText, "0 64 ebs 7:0 8 1 8")
	r.Message(d, "hello", "", syscall.EINVAL)
}

func TestLimits(t *testing.T) {
	small, large := targettest.New(t, types), targettest.New(t, types, blocks, func(l *blk.Limits) { l.OptIO = 12288 })
	for i, x := range []struct {
		r                               *targettest.Rig
		table                           string
		logical, physical, minIO, optIO uint32
	}{
		{small, "0 64 ebs a 0 1", 512, 512, 512, 0},
		{small, "0 64 ebs a 0 8", 4096, 4096, 4096, 0},
		{small, "0 64 ebs a 0 2 16", 1024, 8192, 8192, 0},
		{large, "0 64 ebs a 0 1", 512, 4096, 4096, 12288},
		{large, "0 64 ebs a 0 1 16", 512, 8192, 8192, 0},
		{large, "0 64 ebs a 0 1 1", 512, 512, 512, 12288},
	} {
		l := x.r.Device(string(rune('p'+i)), x.table).Limits()
		if l.LogicalBlock != x.logical || l.PhysicalBlock != x.physical || l.MinIO != x.minIO || l.OptIO != x.optIO || l.MaxWriteZeroes != 0 || l.MaxDiscard == 0 {
			t.Errorf("%s: %+v", x.table, l)
		}
	}
}

// TestPartsOfBlocks: blocks are read, changed and written as a whole; what consists of
// whole blocks is passed on.
func TestPartsOfBlocks(t *testing.T) {
	r := targettest.New(t, types, blocks)
	d := r.Device("x", "0 64 ebs a 8 1")
	r.Write(d, 0, 32, 1)
	r.Trace("a", "write 8+32\n")
	r.Write(d, 3, 2, 2)
	r.Trace("a", "read 8+8\nwrite 8+8\n")
	x := r.Submit(d, blk.Write, blk.FUA, 6, 20, 3)
	r.Done(x, blk.OK)
	r.Trace("a", "read 8+8\nwrite 8+8 fua\nwrite 16+16 fua\nread 32+8\nwrite 32+8 fua\n")
	r.Write(d, 40, 10, 4)
	r.Trace("a", "write 48+8\nread 56+8\nwrite 56+8\n")
	r.Want(d, 0, 3, 0, 1)
	r.Trace("a", "read 8+8\n")
	r.Want(d, 3, 2, 3, 2)
	r.Want(d, 5, 1, 5, 1)
	r.Gate("a").Forget()
	r.Want(d, 6, 20, 6, 3)
	r.Trace("a", "read 8+8\nread 16+16\nread 32+8\n")
	r.Want(d, 26, 6, 26, 1)
	r.Want(d, 40, 10, 40, 4)
	r.Want(d, 50, 14, 50, 0)
	r.Gate("a").Forget()
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Want(d, 32, 8, 32, 0)
	r.Trace("a", "flush 8+0\nread 40+8\n")
}

// TestReadsOfWhatTheDeviceTakes: a larger underlying block is for writes.
func TestReadsOfWhatTheDeviceTakes(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 ebs a 0 1 8")
	r.Write(d, 1, 2, 5)
	r.Trace("a", "read 0+8\nwrite 0+8\n")
	r.Want(d, 1, 2, 1, 5)
	r.Trace("a", "read 1+2\n")
}

// A block smaller than those of the device is read and written with its neighbours.
func TestUnderlyingSmallerThanTheDevices(t *testing.T) {
	r := targettest.New(t, types, blocks)
	d := r.Device("x", "0 64 ebs a 1 1 1")
	r.Write(d, 0, 9, 5)
	r.Trace("a", "read 0+8\nwrite 0+8\nread 8+8\nwrite 8+8\n")
	r.Want(d, 0, 9, 0, 5)
	r.WantDisk("a", 0, 1, 0, 0)
}

func TestDiscards(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 ebs a 8 1 8")
	for _, x := range []struct {
		sector, sectors uint64
		want            string
	}{
		{0, 64, "discard 8+64\n"}, {1, 7, ""}, {0, 7, ""}, {1, 15, "discard 16+8\n"}, {3, 30, "discard 16+24\n"}, {16, 9, "discard 24+8\n"}, {9, 6, ""}, {7, 2, ""},
	} {
		r.Do(d, blk.Discard, x.sector, x.sectors, 0, blk.OK)
		r.Trace("a", x.want)
	}
	r.Do(d, blk.WriteZeroes, 0, 8, 0, blk.NotSupported)
}

// TestDeviceEndsInABlock: of the last block the device may have a part.
func TestDeviceEndsInABlock(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 16384 ebs a 0 1 32768")
	r.Write(d, 16000, 384, 5)
	r.Write(d, 3, 1, 6)
	r.Trace("a", "read 0+16384\nwrite 0+16384\nread 0+16384\nwrite 0+16384\n")
	r.Want(d, 16000, 384, 16000, 5)
	r.Want(d, 3, 1, 3, 6)
}

// TestWritesOfABlockWait: nothing is written to a block between its read and its write,
// in the order in which the writes came; others go on.
func TestWritesOfABlockWait(t *testing.T) {
	r := targettest.New(t, types, blocks)
	d := r.Device("x", "0 64 ebs a 0 1")
	r.Write(d, 0, 64, 1)
	g := r.Gate("a")
	g.Shut()
	holds := func(want string) {
		t.Helper()
		var got []string
		for _, x := range g.Held() {
			got = append(got, fmt.Sprintf("%v %d+%d", x.Op, x.Sector, x.Sectors))
		}
		if got := strings.Join(got, ", "); got != want {
			t.Errorf("under way is %s, want %s", got, want)
		}
	}
	part := r.Submit(d, blk.Write, 0, 8, 2, 2)
	whole := r.Submit(d, blk.Write, 0, 8, 16, 3)
	discard := r.Submit(d, blk.Discard, 0, 8, 8, 0)
	later := r.Submit(d, blk.Write, 0, 20, 1, 4)
	holds("read 8+8")
	other := r.Submit(d, blk.Write, 0, 32, 8, 5)
	holds("read 8+8, write 32+8")
	step := func() {
		for _, x := range []*targettest.IO{part, whole, later} {
			if x.Ends > 0 && x.Status() != blk.OK {
				t.Fatal(x.Status())
			}
		}
		g.ReleaseAll()
		r.Sim.Run()
	}
	step()
	r.Done(other, blk.OK)
	r.Held(part)
	holds("write 8+8")
	step()
	r.Done(part, blk.OK)
	holds("write 8+16")
	step()
	r.Done(whole, blk.OK)
	holds("discard 8+8, read 16+8")
	step()
	r.Done(discard, blk.OK)
	step()
	r.Done(later, blk.OK)
	g.Open()
	r.Want(d, 16, 4, 16, 3)
	r.Want(d, 20, 1, 20, 4)
	r.Want(d, 21, 3, 21, 3)
}

// TestNoWait: what would have to wait fails.
func TestNoWait(t *testing.T) {
	r := targettest.New(t, types, blocks)
	d := r.Device("x", "0 64 ebs a 0 1")
	r.Done(r.Submit(d, blk.Write, blk.NoWait, 1, 1, 2), blk.WouldBlock)
	r.Done(r.Submit(d, blk.Read, blk.NoWait, 1, 1, 2), blk.WouldBlock)
	r.Done(r.Submit(d, blk.Write, blk.NoWait, 8, 8, 2), blk.OK)
	r.Gate("a").Shut()
	part := r.Submit(d, blk.Write, 0, 9, 1, 2)
	r.Done(r.Submit(d, blk.Write, blk.NoWait, 8, 8, 2), blk.WouldBlock)
	r.Gate("a").Open()
	r.Sim.Run()
	r.Done(part, blk.OK)
}

// TestErrors: the error of either I/O is that of the write, and its block is free again.
func TestErrors(t *testing.T) {
	r := targettest.New(t, types, blocks)
	d := r.Device("x", "0 64 ebs a 0 1")
	g := r.Gate("a")
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		g.Shut()
		x := r.Submit(d, blk.Write, 0, 1, 1, 2)
		if op == blk.Write {
			g.ReleaseAll()
			r.Sim.Run()
		}
		held, _ := g.Find(op, 0)
		g.Fail(held.Index, blk.Timeout)
		r.Sim.Run()
		r.Done(x, blk.Timeout)
		g.Open()
		r.Write(d, 2, 1, 3)
	}
}

// disk is an opener of one disk.
type disk struct{ blk.Device }

func (d disk) Open(string, bool) (blk.Device, dm.Number, error) { return d, dm.Number{Major: 7}, nil }
func (disk) Close() error                                       { return nil }

// TestThreads: each thread has sectors of its own, in blocks that all of them write to.
func TestThreads(t *testing.T) {
	const threads, blocksInAll = 8, 4
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	e := env.Real()
	c := dm.NewControl(e, disk{memdev.New(threads*blocksInAll, memdev.Tune(blocks))}, ebs.Type())
	d, err := c.Create("x", "", -1)
	specs, _ := dm.ParseTable("0 32 ebs a 0 1")
	if err == nil {
		err = d.Load(specs, dm.Mode{Write: true})
	}
	if err == nil {
		err = d.Resume(context.Background(), false)
	}
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for id := range uint64(threads) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(id, 1))
			var seeds [blocksInAll]uint64
			var err error
			for i := range uint64(rounds) {
				n := rng.Uint64N(blocksInAll)
				at := n*threads + id
				p := make([]byte, blk.SectorSize)
				if rng.IntN(3) > 0 {
					seeds[n] = i + 1
					blktest.Fill(p, at, seeds[n])
					err = blk.WriteSectors(e, d, p, at, 0)
				} else if err = blk.ReadSectors(e, d, p, at); err == nil {
					err = blktest.Check(p, at, seeds[n])
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
