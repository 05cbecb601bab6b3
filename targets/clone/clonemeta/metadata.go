package clonemeta

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

const (
	superBlock   = 0 // block of the superblock
	superMagic   = 0x8af27f64
	superVersion = 1
)

var le = binary.LittleEndian

var kindSuper = pdata.NewSuperKind(257649492, superMagic)

var superFormat = &pdata.SuperFormat{Kind: kindSuper, Block: superBlock, Metadata: 44}

// Super is a superblock. The package comment describes its fields.
type Super struct {
	Version    uint32
	Metadata   pdata.MapRoot
	RegionSize uint64 // sectors
	TargetSize uint64 // sectors
	Bitset     uint64 // root
}

// Regions is the number of regions.
func (s *Super) Regions() uint64 { return (s.TargetSize + s.RegionSize - 1) / s.RegionSize }

func (s *Super) decode(p []byte) {
	s.Version, s.Metadata = le.Uint32(p[40:]), pdata.GetMapRoot(p[44:])
	s.RegionSize, s.TargetSize, s.Bitset = le.Uint64(p[172:]), le.Uint64(p[180:]), le.Uint64(p[188:])
}

func (s *Super) encode(p []byte) {
	le.PutUint32(p[4:], 0)
	clear(p[16:32])
	le.PutUint64(p[32:], superMagic)
	le.PutUint32(p[40:], s.Version)
	le.PutUint64(p[172:], s.RegionSize)
	le.PutUint64(p[180:], s.TargetSize)
	le.PutUint64(p[188:], s.Bitset)
}

// Metadata is the metadata of a clone device (struct dm_clone_metadata).
type Metadata struct {
	bm    *pdata.BlockManager
	tm    *pdata.TM
	sb    *pdata.Super
	bits  *pdata.Bitset
	super Super // of the running transaction; sb has that of the last commit
	fresh bool  // Open has created the metadata
}

// Open opens the metadata on dev, or creates it where the superblock is all zero. EINVAL
// if it is that of a device of another size or with other regions.
func Open(e env.Env, dev blk.Device, targetSize, regionSize uint64) (*Metadata, error) {
	m := &Metadata{bm: pdata.NewBlockManager(e, dev, 0)}
	var err error
	if m.sb, m.fresh, err = pdata.OpenSuper(m.bm, superFormat, fields{m}); err != nil {
		return nil, err
	}
	if m.fresh {
		s := Super{Version: superVersion, RegionSize: regionSize, TargetSize: targetSize}
		return m, m.sb.Format(func(tm *pdata.TM) error { return m.format(tm, s) })
	}
	if err := m.sb.Load(); err != nil {
		return nil, err
	}
	if s := &m.super; s.Version != superVersion || s.RegionSize != regionSize || s.TargetSize != targetSize {
		return nil, syscall.EINVAL
	}
	return m, m.sb.Open()
}

// Fresh reports whether Open has created the metadata.
func (m *Metadata) Fresh() bool { return m.fresh }

func (m *Metadata) format(tm *pdata.TM, s Super) (err error) {
	m.tm, m.bits, m.super = tm, pdata.NewBitset(tm), s
	if m.super.Bitset, err = m.bits.Empty(); err != nil {
		return err
	}
	m.super.Bitset, err = m.bits.Resize(m.super.Bitset, 0, s.Regions(), false)
	return err
}

// fields is the clone's own part of the superblock.
type fields struct{ m *Metadata }

func (f fields) Load(p []byte) { f.m.super.decode(p) }

func (f fields) Open(tm *pdata.TM) error {
	f.m.tm, f.m.bits = tm, pdata.NewBitset(tm)
	return nil
}

func (f fields) Save(p []byte) (err error) {
	s := &f.m.super
	if s.Bitset, err = f.m.bits.Flush(s.Bitset); err != nil {
		return pdata.In("bitset", err)
	}
	s.encode(p)
	return nil
}

// Load calls fn for each word of 64 regions, in order.
func (m *Metadata) Load(fn func(index, word uint64)) error {
	words := (m.super.Regions() + 63) / 64
	n := uint64(0)
	err := m.bits.Walk(m.super.Bitset, func(index, word uint64) error {
		if n++; index < words {
			fn(index, word)
		}
		return nil
	})
	if err == nil && n < words {
		err = &pdata.Corrupt{Block: m.super.Bitset, Path: []uint64{m.super.Bitset}, Reason: fmt.Sprintf("bitset has %d words for %d regions", n, m.super.Regions())}
	}
	return pdata.In("bitset", err)
}

// Run is the regions [Begin, End).
type Run struct{ Begin, End uint64 }

// Set makes regions hydrated.
func (m *Metadata) Set(runs []Run) error {
	s := &m.super
	return m.sb.Change(func() (err error) {
		for _, r := range runs {
			for i := r.Begin; i < r.End; i++ {
				if s.Bitset, err = m.bits.Set(s.Bitset, i); err != nil {
					return pdata.In("bitset", err)
				}
			}
		}
		return nil
	})
}

// SetPreCommit sets a function that every commit calls before it writes; if it fails, so
// does the commit. The device flushes its destination in it.
func (m *Metadata) SetPreCommit(fn func() error) { m.sb.SetPreCommit(fn) }

// Commit makes all changes durable. It returns [blk.NoSpace] itself, not wrapped, if a
// device has no space: call it again.
func (m *Metadata) Commit() error { return m.sb.Commit(func() error { return nil }) }

// Waits reports whether a commit found no space. Until Commit is through, nothing can be
// changed.
func (m *Metadata) Waits() bool { return m.sb.Changeable() == blk.NoSpace }

// Abort goes back to the last commit by reading everything again from the superblock.
// After an error the metadata has failed for good.
func (m *Metadata) Abort() error { return m.sb.Abort() }

// FlushRead makes durable what Open or Abort has read.
func (m *Metadata) FlushRead() error { return m.sb.FlushRead() }

// SetReadOnly makes every change fail with EPERM.
func (m *Metadata) SetReadOnly() { m.bm.SetReadOnly(true) }

// Space is the number of metadata blocks of 4 KiB, in use and in all.
func (m *Metadata) Space() (used, total uint64) {
	total = m.tm.Map().Blocks()
	return total - m.tm.Map().Free(), total
}

// Super is the superblock of the running transaction.
func (m *Metadata) Super() Super { return m.super }
