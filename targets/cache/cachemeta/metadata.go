package cachemeta

import (
	"fmt"
	"syscall"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

// Options control Open.
type Options struct {
	BlockSectors uint32 // of the cache; EINVAL if the superblock differs; 0: as in the superblock
	Version      uint32 // of new metadata
	HintSize     uint32 // of new metadata
	Format       bool   // create metadata if the superblock is all zero; without it that is EPERM
	CacheBytes   int    // size of the block cache; 0: 64 MiB
	ReadOnly     bool
}

// Metadata is the metadata of a cache (struct dm_cache_metadata).
type Metadata struct {
	bm *pdata.BlockManager
	tm *pdata.TM
	sb *pdata.Super

	mappings *pdata.Array[uint64]
	hints    *pdata.Array[uint32]
	dirty    *pdata.Bitset
	discards *pdata.Bitset

	super Super // of the running transaction; sb has that of the last commit
}

// Open opens the metadata on dev, or creates it. The caller keeps ownership of dev,
// which must outlive the Metadata.
func Open(e env.Env, dev blk.Device, o Options) (*Metadata, error) {
	m := &Metadata{bm: pdata.NewBlockManager(e, dev, o.CacheBytes)}
	sb, fresh, err := pdata.OpenSuper(m.bm, superFormat, fields{m})
	if err != nil {
		return nil, err
	}
	m.sb = sb
	if fresh {
		if !o.Format || o.ReadOnly {
			return nil, syscall.EPERM
		}
		return m, m.format(o)
	}
	m.bm.SetReadOnly(o.ReadOnly)
	return m, m.open(o)
}

func (m *Metadata) open(o Options) error {
	if err := m.sb.Load(); err != nil {
		return err
	}
	s := &m.super
	switch {
	case s.Version < 1 || s.Version > 2:
		return fmt.Errorf("metadata has version %d, want 1 or 2: %w", s.Version, syscall.EINVAL)
	case o.BlockSectors != 0 && o.BlockSectors != s.BlockSize:
		return fmt.Errorf("metadata is for blocks of %d sectors: %w", s.BlockSize, syscall.EINVAL)
	case s.Incompat != 0, s.CompatRO != 0 && !o.ReadOnly:
		return fmt.Errorf("metadata has features that are not known: %w", syscall.EINVAL)
	}
	return m.sb.Open()
}

func (m *Metadata) format(o Options) error {
	return m.sb.Format(func(tm *pdata.TM) (err error) {
		m.setTypes(tm)
		s := &m.super
		*s = Super{Version: o.Version, BlockSize: o.BlockSectors, MetadataBlockSize: pdata.BlockSectors}
		if s.Mappings, err = m.mappings.Empty(); err != nil {
			return err
		}
		if s.Version >= 2 {
			if s.DirtyRoot, err = m.dirty.Empty(); err != nil {
				return err
			}
		}
		s.Discards, err = m.discards.Empty()
		return err
	})
}

func (m *Metadata) setTypes(tm *pdata.TM) {
	m.tm = tm
	m.mappings, m.hints = pdata.NewArray(tm, pdata.U64), pdata.NewArray(tm, pdata.U32)
	m.dirty, m.discards = pdata.NewBitset(tm), pdata.NewBitset(tm)
}

// fields is the cache's own part of the superblock.
type fields struct{ m *Metadata }

func (f fields) Load(p []byte) { f.m.super.Decode(p) }

func (f fields) Open(tm *pdata.TM) error { f.m.setTypes(tm); return nil }

func (f fields) Save(p []byte) error {
	f.m.super.Encode(p)
	return nil
}

// CacheBlocks is the number of blocks of the cache that there is metadata for.
func (m *Metadata) CacheBlocks() uint32 { return m.super.CacheBlocks }

// BlockSectors is the size of a block of the cache.
func (m *Metadata) BlockSectors() uint32 { return m.super.BlockSize }

// Version is the version of the format.
func (m *Metadata) Version() uint32 { return m.super.Version }

// Stats are the counts as last set.
func (m *Metadata) Stats() Stats { return m.super.Stats }

// Total and Free are the numbers of metadata blocks.
func (m *Metadata) Total() uint64 { return m.tm.Map().Blocks() }
func (m *Metadata) Free() uint64  { return m.tm.Map().Free() }

// Changed reports whether anything changed since the last commit.
func (m *Metadata) Changed() bool { return m.sb.Changed() }

// Failed reports whether only Close can still succeed.
func (m *Metadata) Failed() bool { return m.sb.Failed() }

// NeedsCheck reports whether needs_check is set, or should be set but could not be
// written.
func (m *Metadata) NeedsCheck() bool { return m.sb.MustCheck() }

// SetNeedsCheck sets the flag on the disk and changes nothing else. Call it right
// after Abort.
func (m *Metadata) SetNeedsCheck() error { return m.sb.SetNeedsCheck() }

// ClearNeedsCheck makes the next commit clear the flag.
func (m *Metadata) ClearNeedsCheck() error {
	return m.sb.Change(func() error { m.sb.ClearNeedsCheck(); return nil })
}

// SetReadOnly makes every change fail with EPERM.
func (m *Metadata) SetReadOnly() { m.bm.SetReadOnly(true) }

// SetPreCommit sets a function that every commit calls before it writes; if it fails,
// so does the commit.
func (m *Metadata) SetPreCommit(fn func() error) { m.sb.SetPreCommit(fn) }

// Commit makes all changes durable. After [blk.NoSpace] it may be called again; after
// another error everything must be aborted.
func (m *Metadata) Commit() error { return m.sb.Commit(func() error { return nil }) }

// FlushRead makes durable what Open or Abort has read. Before that a flush of the cache
// alone is not enough for what is mapped.
func (m *Metadata) FlushRead() error { return m.sb.FlushRead() }

// Abort goes back to the last commit. After an error the metadata has failed for good.
func (m *Metadata) Abort() error { return m.sb.Abort() }

// Begin takes the clean-shutdown flag back, durably: from now on dirty bits, hints and
// discards on the disk are old.
func (m *Metadata) Begin() error {
	if err := m.goOn(); err != nil || !m.super.Clean() {
		return err
	}
	if err := m.sb.Change(func() error { m.super.Flags &^= FlagClean; return nil }); err != nil {
		return err
	}
	return m.Commit()
}

// goOn finishes a commit that has found no space.
func (m *Metadata) goOn() error {
	if m.sb.Changeable() == blk.NoSpace {
		return m.Commit()
	}
	return nil
}

// Insert records that a block of the cache holds one of the origin.
func (m *Metadata) Insert(cb uint32, oblock uint64) error {
	return m.set(cb, Mapping{oblock, Valid})
}

// Remove records that a block of the cache is free.
func (m *Metadata) Remove(cb uint32) error { return m.set(cb, Mapping{}) }

func (m *Metadata) set(cb uint32, v Mapping) error {
	return m.sb.Change(func() (err error) {
		m.super.Mappings, err = m.mappings.Set(m.super.Mappings, uint64(cb), v.Value())
		return pdata.In("mappings", err)
	})
}

// Resize changes the number of blocks of the cache. EINVAL: a block that would go is
// dirty.
func (m *Metadata) Resize(blocks uint32) error {
	s := &m.super
	if err := m.goOn(); err != nil || blocks == s.CacheBlocks {
		return err
	}
	if blocks < s.CacheBlocks {
		if clean, err := m.cleanFrom(blocks); err != nil {
			return err
		} else if !clean {
			return fmt.Errorf("a block beyond the new end is dirty: %w", syscall.EINVAL)
		}
	}
	return m.sb.Change(func() (err error) {
		old, now := uint64(s.CacheBlocks), uint64(blocks)
		if s.Mappings, err = m.mappings.Resize(s.Mappings, old, now, 0); err != nil {
			return pdata.In("mappings", err)
		}
		if s.Version >= 2 {
			if s.DirtyRoot, err = m.dirty.Resize(s.DirtyRoot, old, now, false); err != nil {
				return pdata.In("dirty bits", err)
			}
		}
		s.CacheBlocks = blocks
		return nil
	})
}

// cleanFrom reports whether all blocks from one on are free or clean.
func (m *Metadata) cleanFrom(first uint32) (clean bool, err error) {
	clean = true
	err = m.Load(Policy{}, func(b Block) error {
		clean = clean && (b.CBlock < first || !b.Dirty)
		return nil
	})
	return clean, err
}

// AllClean reports whether no block is dirty.
func (m *Metadata) AllClean() (bool, error) { return m.cleanFrom(0) }
