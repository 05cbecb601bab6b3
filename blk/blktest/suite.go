package blktest

import (
	"math/bits"
	"testing"

	"udm/blk"
	"udm/blk/checkdev"
	"udm/env"
)

// Suite is the conformance suite, which every device must pass. Its fields
// declare what a device leaves out.
type Suite struct {
	// Open makes a new device of at least 1 MiB with any content. The suite
	// closes it.
	Open func(t *testing.T) blk.Device
	// Env is the device's environment; nil means env.Real.
	Env env.Env
	// Forgets: the device does not keep written data (null, zero).
	Forgets bool
	// Crash, if not nil, cuts the power of a device made by Open and returns the
	// device as it comes back. The old one is no longer used.
	Crash func(t *testing.T, d blk.Device, seed uint64) blk.Device
}

// TestDevice runs the suite in the production environment.
func TestDevice(t *testing.T, open func(t *testing.T) blk.Device) {
	t.Helper()
	Suite{Open: open}.Run(t)
}

// Run runs every test of the suite as a subtest on a device of its own.
func (s Suite) Run(t *testing.T) {
	if s.Env == nil {
		s.Env = env.Real()
	}
	for _, c := range []struct {
		name string
		run  func(*session)
	}{
		{"limits", (*session).limits},
		{"content", (*session).content},
		{"vectors", (*session).vectors},
		{"flags", (*session).flags},
		{"empty", (*session).empty},
		{"refused", (*session).refused},
		{"zeroes", (*session).zeroes},
		{"discard", (*session).discard},
		{"again", (*session).again},
		{"queue", (*session).queue},
		{"model", (*session).model},
		{"crash", (*session).crash},
		{"close", (*session).closeWaits},
	} {
		t.Run(c.name, func(t *testing.T) {
			Leaks(t)
			x := s.session(t)
			c.run(x)
			if err := x.dev.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// session is one test on one device.
type session struct {
	*testing.T
	Suite
	raw   blk.Device
	dev   blk.Device // raw with checkdev around it
	block uint64     // sectors in a logical block
	area  uint64     // sectors at the front that tests write to; a multiple of 64 blocks
}

func (s Suite) session(t *testing.T) *session {
	x := &session{T: t, Suite: s}
	x.use(s.Open(t))
	return x
}

func (x *session) use(d blk.Device) {
	l := d.Limits()
	x.raw, x.dev = d, checkdev.New(d, checkdev.Options{})
	x.block = max(1, uint64(l.LogicalBlock)/blk.SectorSize)
	x.area = min(l.Size, 4096)
	x.area -= x.area % (64 * x.block)
	if x.area == 0 {
		x.Fatalf("%v has %d sectors: too small for the suite", d, l.Size)
	}
}

func (x *session) write(sector, sectors, seed uint64, f blk.Flags) {
	x.Helper()
	if err := blk.WriteSectors(x.Env, x.dev, Pattern(sector, sectors, seed), sector, f); err != nil {
		x.Fatalf("write %d+%d %v: %v", sector, sectors, f, err)
	}
}

func (x *session) read(sector, sectors uint64) []byte {
	x.Helper()
	p := Pattern(sector, sectors, MaxSeed)
	if err := blk.ReadSectors(x.Env, x.dev, p, sector); err != nil {
		x.Fatalf("read %d+%d: %v", sector, sectors, err)
	}
	return p
}

// want reads and compares, unless the device forgets.
func (x *session) want(sector, sectors, seed uint64) {
	x.Helper()
	p := x.read(sector, sectors)
	if err := Check(p, sector, seed); err != nil && !x.Forgets {
		x.Fatalf("read %d+%d: %v", sector, sectors, err)
	}
}

func (x *session) do(op blk.Op, sector, sectors uint64, f blk.Flags) blk.Status {
	b := &blk.Bio{Op: op, Flags: f, Sector: sector}
	if op.HasData() {
		b.SetData(Pattern(sector, sectors, 1))
	}
	b.Sectors = sectors
	return blk.Do(x.Env, x.dev, b)
}

func (x *session) expect(want blk.Status, op blk.Op, sector, sectors uint64, f blk.Flags) {
	x.Helper()
	if st := x.do(op, sector, sectors, f); st != want {
		x.Fatalf("%v %d+%d %v: %v, want %v", op, sector, sectors, f, st, want)
	}
}

func (x *session) limits() {
	l := x.raw.Limits()
	power := func(name string, n, least uint32) {
		if bits.OnesCount32(n) != 1 || n < least {
			x.Errorf("%s is %d: no power of two from %d on", name, n, least)
		}
	}
	power("LogicalBlock", l.LogicalBlock, blk.SectorSize)
	power("PhysicalBlock", l.PhysicalBlock, l.LogicalBlock)
	if l.Size%x.block != 0 {
		x.Errorf("Size %d is no multiple of the logical block", l.Size)
	}
	if l.MinIO%l.LogicalBlock != 0 || l.OptIO%l.LogicalBlock != 0 {
		x.Errorf("MinIO %d, OptIO %d with blocks of %d", l.MinIO, l.OptIO, l.LogicalBlock)
	}
	if n := uint64(l.MaxSectors); n != 0 && n < x.block {
		x.Errorf("MaxSectors %d is less than a block", n)
	}
	if (l.MaxDiscard == 0) != (l.DiscardGranularity == 0) {
		x.Errorf("MaxDiscard %d with granularity %d", l.MaxDiscard, l.DiscardGranularity)
	}
	if x.raw.Limits() != l {
		x.Error("Limits change without cause")
	}
	if x.raw.String() == "" {
		x.Error("no name")
	}
}

// content checks that written data is read back, in different pieces, up to the
// last block.
func (x *session) content() {
	seed := uint64(1)
	for n := x.block; n <= x.area; n *= 2 {
		at := uint64(0)
		for ; at+n <= x.area && at < 8*n; at += n {
			x.write(at, n, seed, 0)
		}
		x.want(0, at, seed)
		seed++
	}
	size := x.raw.Limits().Size
	x.write(size-x.block, x.block, seed, 0)
	x.want(size-x.block, x.block, seed)
}
