package blktest

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"udm/blk"
)

// Model tracks what each sector of a disk may hold: one value while the disk is
// up, and a set of values after a power cut. A value is the seed of a [Fill]; 0
// means zeroes.
//
// Each sector has a list of versions. The first is durable; each of the others
// was written later and may or may not have reached the medium:
//
//	Begin      a write is submitted        append, not acknowledged
//	End ok     it ended                    acknowledged: what a read returns
//	End failed it failed                   may or may not be there: both legal
//	Flushed    a flush ended               what was acknowledged before the
//	                                       flush began is durable, older is gone
//	Crash      the power failed            every version is legal until a read
//	                                       settles which one it is
//
// A read settles nothing while undefined content is legal: what a discard leaves may be
// the old data at one read and zeroes at the next.
//
// Bios in flight together must not overlap, reads included. Not safe for
// concurrent use: the test locks.
type Model struct {
	cells []cell
	clock uint64 // counts acknowledgements and flushes
}

type cell struct {
	versions []version // oldest first, never empty
	open     bool      // a read may return any version
	crashed  bool      // open because of a power cut: the read tells what is durable
}

type version struct {
	seed uint64
	any  bool   // undefined content, such as a discard leaves
	ack  uint64 // clock when it was acknowledged; 0: not yet
	id   uint64 // of the write that made it
}

// Op is a write in flight, made by Begin.
type Op struct {
	sector, sectors uint64
	id              uint64
}

// NewModel is a disk of zeroes.
func NewModel(sectors uint64) *Model {
	m := &Model{cells: make([]cell, sectors), clock: 1}
	for i := range m.cells {
		m.cells[i].versions = []version{{ack: 1}}
	}
	return m
}

// Sectors is the size.
func (m *Model) Sectors() uint64 { return uint64(len(m.cells)) }

// Resize cuts the disk, or adds sectors whose content is undefined.
func (m *Model) Resize(sectors uint64) {
	for uint64(len(m.cells)) < sectors {
		m.cells = append(m.cells, cell{versions: []version{{any: true, ack: 1}}})
	}
	m.cells = m.cells[:sectors]
}

// Begin records that a write of the pattern of seed was submitted.
func (m *Model) Begin(sector, sectors, seed uint64) Op {
	return m.begin(sector, sectors, version{seed: seed})
}

// BeginAny is like Begin, for a discard that leaves undefined content.
func (m *Model) BeginAny(sector, sectors uint64) Op {
	return m.begin(sector, sectors, version{any: true})
}

func (m *Model) begin(sector, sectors uint64, v version) Op {
	m.clock++
	v.id = m.clock
	for i := sector; i < sector+sectors; i++ {
		c := &m.cells[i]
		c.versions = append(c.versions, v)
		c.crashed = false // what a read finds may be this one, in a cache
	}
	return Op{sector, sectors, v.id}
}

// End records the result of a write. fua: it had the FUA flag, so it is durable.
func (m *Model) End(o Op, st blk.Status, fua bool) {
	m.clock++
	for i := o.sector; i < o.sector+o.sectors; i++ {
		c := &m.cells[i]
		n := slices.IndexFunc(c.versions, func(v version) bool { return v.id == o.id })
		switch {
		case st != blk.OK:
			c.open = true
			continue
		case fua:
			c.versions, n = c.versions[n:], 0
		case c.open:
			// It stays uncertain which of the older versions is there: a flush
			// that covers one of them may have made another durable.
			for i := range c.versions[:n] {
				c.versions[i].ack = 0
			}
		}
		c.versions[n].ack = m.clock
		c.open, c.crashed = false, false
	}
}

// FlushBegin records that a flush was submitted; the token is for FlushEnd.
func (m *Model) FlushBegin() uint64 { return m.clock }

// FlushEnd records that the flush of the token succeeded. (A failed flush
// promises nothing: do not record it.)
func (m *Model) FlushEnd(token uint64) {
	for i := range m.cells {
		c := &m.cells[i]
		last := 0
		for n, v := range c.versions {
			if v.ack != 0 && v.ack <= token {
				last = n
			}
		}
		// A failed write may reach the medium at any time, so an open cell keeps
		// all its versions.
		if !c.open {
			c.versions = c.versions[last:]
		}
	}
}

// Write, Zero, Discard and Flush are single steps, for runs without concurrency.
func (m *Model) Write(sector, sectors, seed uint64, fua bool) {
	m.End(m.Begin(sector, sectors, seed), blk.OK, fua)
}

func (m *Model) Zero(sector, sectors uint64, fua bool) { m.Write(sector, sectors, 0, fua) }

func (m *Model) Discard(sector, sectors uint64) {
	m.End(m.BeginAny(sector, sectors), blk.OK, false)
}

func (m *Model) Flush() { m.FlushEnd(m.FlushBegin()) }

// Crash records a power failure: from now on every version is legal, until a
// Check settles which one it is.
func (m *Model) Crash() {
	for i := range m.cells {
		m.cells[i].open, m.cells[i].crashed = true, true
	}
}

// Doubt records that unflushed data may have been lost without a power cut: every
// version is legal, and what a read finds may still be only in a cache.
func (m *Model) Doubt() {
	for i := range m.cells {
		m.cells[i].open = m.cells[i].open || len(m.cells[i].versions) > 1
	}
}

// Check compares data read from sector on with the legal values, and settles the
// sectors that had several.
func (m *Model) Check(p []byte, sector uint64) error {
	for ; len(p) > 0; p, sector = p[blk.SectorSize:], sector+1 {
		if err := m.cells[sector].check(p[:blk.SectorSize], sector); err != nil {
			return err
		}
	}
	return nil
}

// CheckAny is like Check for a disk that may lose everything written since the
// last flush at any moment, not only in a power cut: every version is legal,
// whatever was read before.
func (m *Model) CheckAny(p []byte, sector uint64) error {
	for ; len(p) > 0; p, sector = p[blk.SectorSize:], sector+1 {
		vs, one := m.cells[sector].versions, p[:blk.SectorSize]
		if !slices.ContainsFunc(vs, func(v version) bool { return v.any || Check(one, sector, v.seed) == nil }) {
			return fmt.Errorf("%w, or another of %v", Check(one, sector, vs[len(vs)-1].seed), seeds(vs))
		}
	}
	return nil
}

func (c *cell) check(p []byte, sector uint64) error {
	legal := c.legal()
	if slices.ContainsFunc(legal, func(v version) bool { return v.any }) {
		return nil
	}
	for _, v := range legal {
		if Check(p, sector, v.seed) == nil {
			if c.open {
				c.settle(v)
			}
			return nil
		}
	}
	err := Check(p, sector, legal[len(legal)-1].seed)
	if len(legal) > 1 {
		return fmt.Errorf("%w, or another of %v", err, seeds(legal))
	}
	return err
}

// legal lists what a read may return.
func (c *cell) legal() []version {
	if c.open {
		return c.versions
	}
	for i := len(c.versions) - 1; ; i-- {
		if c.versions[i].ack != 0 {
			return c.versions[i : i+1]
		}
	}
}

// settle makes v the sector's content. After a power cut v is on the medium;
// after a failed write it may be only in a cache, and the others stay possible
// for the next power cut.
func (c *cell) settle(v version) {
	v.ack, v.id = 1, 0
	if c.crashed {
		c.versions = c.versions[:0]
	}
	c.versions, c.open, c.crashed = append(c.versions, v), false, false
}

func seeds(vs []version) (s []uint64) {
	for _, v := range vs {
		s = append(s, v.seed)
	}
	return s
}

// Clone returns an independent copy: the model of a CrashClone.
func (m *Model) Clone() *Model {
	c := &Model{cells: slices.Clone(m.cells), clock: m.clock}
	for i := range c.cells {
		c.cells[i].versions = slices.Clone(c.cells[i].versions)
	}
	return c
}

// Digest writes the legal values of each sector to h, so that models with equal
// legal values have equal digests. A nil model writes nothing.
func (m *Model) Digest(h io.Writer) {
	if m == nil {
		return
	}
	var p []byte
	for i := range m.cells {
		legal := m.cells[i].legal()
		p = append(p, byte(len(legal)))
		for _, v := range legal {
			p = binary.LittleEndian.AppendUint64(p, v.seed)
			if v.any {
				p = append(p, 1)
			}
		}
	}
	h.Write(p)
}
