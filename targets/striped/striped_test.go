package striped_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"udm/blk"
	"udm/blk/blktest"
	"udm/dm"
	"udm/targets/internal/targettest"
	"udm/targets/linear"
	"udm/targets/striped"
)

var types = []*dm.Type{striped.Type(), linear.Type()}

func TestConforms(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 6144 striped 3 16 a 0 b 5 c 1")
}

func TestConformsOddChunk(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types, "0 5120 striped 2 5 a 0 b 16")
}

func TestConformsThreeDeep(t *testing.T) {
	targettest.Conforms(t, blktest.Suite{}, types,
		"0 4096 striped 2 8 a 0 b 0",
		"0 4096 linear c 9",
		"0 8192 striped 2 64 /dev/dm-0 0 /dev/dm-1 0",
		"0 6000 striped 3 40 /dev/dm-2 0 /dev/dm-2 2000 d 0\n6000 100 linear /dev/dm-2 4000")
}

func TestRefuses(t *testing.T) {
	targettest.New(t, types).Refuses(`
		0 96 striped => EINVAL Not enough arguments
		0 96 striped 3 => EINVAL Not enough arguments
		0 96 striped 0 8 => EINVAL Invalid stripe count
		0 96 striped q 8 a 0 b 0 => EINVAL Invalid stripe count
		0 96 striped -2 8 a 0 b 0 => EINVAL Invalid stripe count
		0 96 striped 4294967298 8 a 0 b 0 => EINVAL Invalid stripe count
		0 96 striped 2 0 a 0 b 0 => EINVAL Invalid chunk_size
		0 96 striped 2 8q a 0 b 0 => EINVAL Invalid chunk_size
		0 97 striped 2 8 a 0 b 0 => EINVAL Target length not divisible by number of stripes
		0 98 striped 2 8 a 0 b 0 => EINVAL Target length not divisible by chunk size
		0 96 striped 2 8 a 0 => EINVAL Not enough destinations specified
		0 96 striped 2 8 a 0 b => EINVAL Not enough destinations specified
		0 96 striped 2 8 a 0 b 0 c => EINVAL Not enough destinations specified
		0 96 striped 2 8 a 0 b 0 c 0 => EINVAL Not enough destinations specified
		0 17179869176 striped 4294967294 1 a 0 => EINVAL Not enough destinations specified
		0 96 striped 2 8 a q b 0 => EINVAL Couldn't parse stripe destination
		0 96 striped 2 8 a 0 b 1q => EINVAL Couldn't parse stripe destination
		0 96 striped 2 8 a 0 /none 0 => ENODEV Couldn't parse stripe destination
		0 32784 striped 2 8 a 0 b 0 => EINVAL 7:0 too small for target: start=0, len=16392, dev_size=16384
		0 32768 striped 2 8 a 0 b 1 => EINVAL 7:1 too small for target: start=1, len=16384, dev_size=16384
	`)
}

// The places are those of the kernel's answers in test/kernel.
func TestPlaces(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 96 striped 3 8 a 0 b 16 c 32")
	r.Lines(d, dm.Info, "0 96 striped 3 7:0 7:1 7:2 1 AAA")
	r.Lines(d, dm.TableText, "0 96 striped 3 8 7:0 0 7:1 16 7:2 32")
	r.Write(d, 0, 96, 1)
	r.Write(d, 5, 20, 2)
	r.Want(d, 5, 20, 5, 2)
	r.WantDisk("a", 0, 5, 0, 1)
	r.WantDisk("a", 5, 3, 5, 2)
	r.WantDisk("a", 8, 1, 24, 2)
	r.WantDisk("b", 16, 8, 8, 2)
	r.WantDisk("b", 40, 8, 80, 1)
	r.WantDisk("c", 32, 8, 16, 2)
	r.WantDisk("c", 56, 8, 88, 1)
	for _, name := range []string{"a", "b", "c"} {
		r.Gate(name).Forget()
	}
	r.Do(d, blk.Discard, 8, 40, 0, blk.OK)
	r.Do(d, blk.WriteZeroes, 50, 7, 0, blk.OK)
	r.Do(d, blk.Flush, 0, 0, 0, blk.OK)
	r.Trace("a", "discard 8+8\nwrite-zeroes 18+6\nflush 0+0\n")
	r.Trace("b", "discard 16+16\nwrite-zeroes 32+1\nflush 0+0\n")
	r.Trace("c", "discard 32+16\nflush 0+0\n")
}

// TestRanges checks discards of random ranges against a model, for random
// shapes.
func TestRanges(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		n, chunk := 1+rng.Uint64N(4), 1+rng.Uint64N(9)
		size := n * chunk * 6
		table := fmt.Sprintf("0 8 linear z 0\n8 %d striped %d %d", size, n, chunk)
		for i := range n {
			table += fmt.Sprintf(" %c %d", 'a'+rune(i), rng.IntN(30))
		}
		r := targettest.New(t, types)
		d := r.Device("x", table)
		m := blktest.NewModel(8 + size)
		r.Write(d, 0, 8+size, 1)
		m.Write(0, 8+size, 1, false)
		for range 8 {
			at := rng.Uint64N(size)
			sectors := 1 + rng.Uint64N(min(2*chunk, size-at))
			r.Do(d, blk.Discard, 8+at, sectors, 0, blk.OK)
			m.Zero(8+at, sectors, false)
		}
		x := r.Do(d, blk.Read, 0, 8+size, blktest.MaxSeed, blk.OK)
		if err := m.Check(x.Data, 0); err != nil {
			t.Fatalf("seed %d, %s: %v", seed, table, err)
		}
	}
}

func TestHints(t *testing.T) {
	r := targettest.New(t, types)
	if l := r.Device("x", "0 96 striped 3 8 a 0 b 16 c 32").Limits(); l.MinIO != 4096 || l.OptIO != 12288 {
		t.Errorf("MinIO %d, OptIO %d", l.MinIO, l.OptIO)
	}
}

func TestErrorsAreCounted(t *testing.T) {
	r := targettest.New(t, types)
	d := r.Device("x", "0 64 striped 4 8 a 0 b 0 a 100 c 0")
	g := r.Gate("a")
	g.Shut()
	fail := func(flags blk.Flags, st blk.Status) {
		t.Helper()
		x := r.Submit(d, blk.Read, flags, 0, 8, 1)
		g.Fail(g.Held()[0].Index, st)
		r.Done(x, st)
	}
	fail(blk.Readahead, blk.IOErr)
	fail(0, blk.NotSupported)
	r.Lines(d, dm.Info, "0 64 striped 4 7:0 7:1 7:0 7:2 1 AAAA")
	for i := range uint32(20) {
		if i == 14 {
			fail(0, blk.NoSpace)
		}
		// Both stripes on the disk count, and raise an event, 14 times.
		if nr := d.Status().EventNr; nr != min(2*i, 28) {
			t.Fatalf("event number %d after %d errors", nr, i)
		}
		fail(0, blk.IOErr)
	}
	r.Lines(d, dm.Info, "0 64 striped 4 7:0 7:1 7:0 7:2 1 DADA")
	r.Suspend(d, false)
	r.Resume(d)
	r.Lines(d, dm.Info, "0 64 striped 4 7:0 7:1 7:0 7:2 1 DADA")
}
