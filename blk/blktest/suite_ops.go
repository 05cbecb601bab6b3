package blktest

import (
	"bytes"
	"math"

	"udm/blk"
)

// cuts are sizes in bytes of the buffers that a vector is cut into; the remainder
// is one more buffer. Borders need not be sector borders, and a buffer may be
// empty.
var cuts = [][]int{
	{512, 3584, 1024},
	{1, 511, 512},
	{100, 0, 412, 3, 4093},
	{0, 4095, 1, 0},
	{700, 7, 7, 7, 4096},
}

const canary = 0xc5

// vector cuts n bytes into buffers, with canaries after the data.
func vector(sizes []int, n int) (bufs [][]byte, all []byte) {
	all = bytes.Repeat([]byte{canary}, n+64)
	at := 0
	for _, size := range sizes {
		size = min(size, n-at)
		bufs = append(bufs, all[at:at+size:at+size])
		at += size
	}
	return append(bufs, all[at:]), all
}

func (x *session) vectors() {
	n := (16 + x.block - 1) / x.block * x.block
	for i, sizes := range cuts {
		seed, at := uint64(i+1), uint64(i)*x.block
		bufs, all := vector(sizes, int(n*blk.SectorSize))
		Fill(all[:n*blk.SectorSize], at, seed)
		sent := bytes.Clone(all)
		// Half of them start after the first block of the vector, as the rest of
		// a split bio does.
		skip := uint64(i%2) * x.block
		x.transfer(blk.Write, bufs, at, n, skip)
		if !bytes.Equal(all, sent) {
			x.Errorf("cut %v: a write changed its buffers", sizes)
		}
		x.want(at+skip, n-skip, seed)

		bufs, all = vector(sizes, int(n*blk.SectorSize))
		x.transfer(blk.Read, bufs, at, n, skip)
		if x.Forgets {
			continue
		}
		data, tail := all[:n*blk.SectorSize], all[n*blk.SectorSize:]
		if err := Check(data[skip*blk.SectorSize:], at+skip, seed); err != nil {
			x.Errorf("cut %v: %v", sizes, err)
		}
		if bytes.Count(tail, []byte{canary}) != len(tail) || skip > 0 && bytes.Count(data[:skip*blk.SectorSize], []byte{canary}) != int(skip*blk.SectorSize) {
			x.Errorf("cut %v: a read wrote outside its data", sizes)
		}
	}
}

func (x *session) transfer(op blk.Op, bufs [][]byte, at, n, skip uint64) {
	x.Helper()
	b := &blk.Bio{Op: op, Sector: at}
	b.SetBufs(bufs, n)
	b.Advance(skip)
	if st := blk.Do(x.Env, x.dev, b); st != blk.OK {
		x.Fatalf("%v of a vector: %v", op, st)
	}
}

// flags checks that every legal flag is accepted and does not change what is
// read.
func (x *session) flags() {
	n := 8 * x.block
	for i, f := range []blk.Flags{0, blk.FUA, blk.Preflush, blk.FUA | blk.Preflush} {
		x.write(0, n, uint64(i+1), f)
		x.want(0, n, uint64(i+1))
		x.expect(blk.OK, blk.Flush, 0, 0, 0)
		x.want(0, n, uint64(i+1))
	}
	b := &blk.Bio{Flags: blk.Readahead}
	b.SetData(make([]byte, n*blk.SectorSize))
	if blk.Do(x.Env, x.dev, b) == blk.OK && !x.Forgets {
		if err := Check(b.Bufs[0], 0, 4); err != nil {
			x.Errorf("readahead: %v", err)
		}
	}
	if !x.raw.Limits().NoWait {
		return
	}
	for _, op := range []blk.Op{blk.Read, blk.Write, blk.Flush, blk.WriteZeroes} {
		sectors := n
		if op == blk.Flush {
			sectors = 0
		}
		if st := x.do(op, 0, sectors, blk.NoWait); st != blk.OK && st != blk.WouldBlock {
			x.Errorf("%v nowait: %v", op, st)
		}
	}
}

// empty: bios without sectors end well and do nothing.
func (x *session) empty() {
	x.write(0, x.block, 1, 0)
	size := x.raw.Limits().Size
	for _, at := range []uint64{0, size} {
		x.expect(blk.OK, blk.Read, at, 0, 0)
		x.expect(blk.OK, blk.Write, at, 0, 0)
		x.expect(blk.OK, blk.Write, at, 0, blk.Preflush|blk.FUA)
		x.expect(blk.OK, blk.WriteZeroes, at, 0, 0)
	}
	for _, op := range []blk.Op{blk.Read, blk.Write} {
		b := &blk.Bio{Op: op}
		if st := blk.Do(x.Env, x.raw, b); st != blk.OK {
			x.Errorf("empty %v of the bare device: %v", op, st)
		}
	}
	x.want(0, x.block, 1)
}

// refused: bad bios get their status and do no harm.
func (x *session) refused() {
	size := x.raw.Limits().Size
	x.write(size-x.block, x.block, 7, 0)
	for _, op := range []blk.Op{blk.Read, blk.Write, blk.WriteZeroes} {
		x.expect(blk.Invalid, op, size, x.block, 0)
		x.expect(blk.Invalid, op, size-x.block, 2*x.block, 0)
		x.expect(blk.Invalid, op, math.MaxUint64&^(x.block-1), x.block, 0)
		if x.block > 1 {
			x.expect(blk.Invalid, op, 1, x.block, 0)
		}
	}
	if x.raw.Limits().MaxDiscard == 0 {
		x.expect(blk.NotSupported, blk.Discard, 0, x.block, 0)
	}
	x.want(size-x.block, x.block, 7)
}

func (x *session) zeroes() {
	all := x.area
	for i, f := range []blk.Flags{0, blk.NoUnmap, blk.FUA, blk.NoUnmap | blk.FUA} {
		x.write(0, all, uint64(i+1), 0)
		// Odd ranges, a whole number of pages, and one block.
		for _, r := range [][2]uint64{{x.block, 2 * x.block}, {all / 4, all / 4}, {all - 3*x.block, x.block}} {
			x.expect(blk.OK, blk.WriteZeroes, r[0], r[1], f)
			x.want(r[0], r[1], 0)
			x.want(r[0]-x.block, x.block, uint64(i+1))
			x.want(r[0]+r[1], x.block, uint64(i+1))
		}
	}
	st := x.do(blk.WriteZeroes, 0, x.block, blk.FastZero)
	if st != blk.OK && st != blk.NotSupported {
		x.Errorf("fast zero: %v", st)
	}
	if st == blk.OK {
		x.want(0, x.block, 0)
	}
}

// discard: what is beside the range stays, and the range can be written again.
func (x *session) discard() {
	if x.raw.Limits().MaxDiscard == 0 {
		return
	}
	for _, n := range []uint64{x.block, 8 * x.block, x.area / 2} {
		at := x.area/4 + x.block
		x.write(0, x.area, n, 0)
		x.expect(blk.OK, blk.Discard, at, n, 0)
		x.want(0, at, n)
		x.want(at+n, x.area-at-n, n)
		x.read(at, n)
		x.write(at, n, n+1, 0)
		x.want(at, n, n+1)
	}
}

// again checks that a bio may be reused as soon as it has ended.
func (x *session) again() {
	b := &blk.Bio{}
	for i := range uint64(20) {
		at := i % 8 * x.block
		b.Reset()
		b.Op, b.Sector = blk.Write, at
		b.SetData(Pattern(at, x.block, i+1))
		if st := blk.Do(x.Env, x.dev, b); st != blk.OK {
			x.Fatal(st)
		}
		b.Rearm()
		b.Op, b.Sector = blk.Read, at
		b.SetData(make([]byte, x.block*blk.SectorSize))
		if st := blk.Do(x.Env, x.dev, b); st != blk.OK {
			x.Fatal(st)
		}
		if err := Check(b.Bufs[0], at, i+1); err != nil && !x.Forgets {
			x.Fatal(err)
		}
	}
}
