package erameta

import (
	"bytes"
	"syscall"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

// Options control Open.
type Options struct {
	BlockSize  uint32 // sectors; EINVAL if the superblock differs; 0: as in the superblock
	Format     bool   // create metadata if the superblock is all zero; without it that is EPERM
	CacheBytes int    // size of the block cache; 0: 64 MiB
}

// Metadata is the metadata of an era device (struct era_metadata).
type Metadata struct {
	bm      *pdata.BlockManager
	tm      *pdata.TM
	sb      *pdata.Super
	sets    *pdata.Tree[Writeset] // era -> writeset
	eras    *pdata.Array[uint32]
	current *pdata.Bitset
	dropped *pdata.Bitset // those that the tree lets go of

	super  Super // of the running transaction; sb has that of the last commit
	digest digest
}

// Open opens the metadata on dev, or creates it. The caller keeps ownership of dev,
// which must outlive the Metadata.
func Open(e env.Env, dev blk.Device, o Options) (*Metadata, error) {
	m := &Metadata{bm: pdata.NewBlockManager(e, dev, o.CacheBytes)}
	var fresh bool
	var err error
	if m.sb, fresh, err = pdata.OpenSuper(m.bm, superFormat, fields{m}); err != nil {
		return nil, err
	}
	if fresh {
		if !o.Format {
			return nil, syscall.EPERM
		}
		return m, m.sb.Format(func(tm *pdata.TM) error { return m.format(tm, o.BlockSize) })
	}
	if err := m.sb.Load(); err != nil {
		return nil, err
	}
	if m.super.Version != SuperVersion || o.BlockSize != 0 && o.BlockSize != m.super.BlockSize {
		return nil, syscall.EINVAL
	}
	return m, m.sb.Open()
}

func (m *Metadata) format(tm *pdata.TM, blockSize uint32) (err error) {
	m.setTypes(tm)
	m.super = Super{Version: SuperVersion, BlockSize: blockSize, MetadataBlockSize: pdata.BlockSectors}
	if m.super.Sets, err = m.sets.Empty(); err != nil {
		return err
	}
	m.super.Eras, err = m.eras.Empty()
	return err
}

// setTypes sets what the values of the trees refer to.
func (m *Metadata) setTypes(tm *pdata.TM) {
	m.tm, m.digest = tm, digest{}
	m.eras = pdata.NewArray(tm, pdata.U32)
	m.current, m.dropped = pdata.NewBitset(tm), pdata.NewBitset(tm)
	m.sets = pdata.NewTree(tm, WritesetCodec).Refs(each(tm.Inc), each(m.dropped.Del), bytes.Equal)
}

// each calls fn for the roots of n writesets.
func each(fn func(root uint64) error) func(values []byte, n int) error {
	return func(values []byte, n int) error {
		for i := range n {
			if err := fn(WritesetCodec.Get(values[i*WritesetCodec.Size:]).Root); err != nil {
				return err
			}
		}
		return nil
	}
}

// fields is the era's own part of the superblock.
type fields struct{ m *Metadata }

func (f fields) Load(p []byte) { f.m.super.Decode(p) }

func (f fields) Open(tm *pdata.TM) error {
	f.m.setTypes(tm)
	return nil
}

func (f fields) Save(p []byte) (err error) {
	s := &f.m.super
	if s.Current.Root, err = f.m.current.Flush(s.Current.Root); err != nil {
		return pdata.In("writeset", err)
	}
	s.Encode(p)
	return nil
}

// Commit makes all changes durable. It returns [blk.NoSpace] itself, not wrapped, if
// the device has no space: call it again.
func (m *Metadata) Commit() error { return m.sb.Commit(func() error { return nil }) }

// Abort goes back to the last commit by reading everything again from the superblock.
// After an error the metadata has failed for good.
func (m *Metadata) Abort() error { return m.sb.Abort() }

// Err returns the error that prevents changes and commits until Abort, or nil.
func (m *Metadata) Err() error { return m.sb.Err() }

// Failed reports whether nothing can succeed any more.
func (m *Metadata) Failed() bool { return m.sb.Failed() }

// Waits reports whether a commit found no space. Until Commit is through, nothing can be
// changed.
func (m *Metadata) Waits() bool { return m.sb.Changeable() == blk.NoSpace }

// BlockSize is the size of a block in sectors.
func (m *Metadata) BlockSize() uint32 { return m.super.BlockSize }

// Blocks is the number of blocks of the device.
func (m *Metadata) Blocks() uint32 { return m.super.Blocks }

// Era is the running era, or the last one if none runs.
func (m *Metadata) Era() uint32 { return m.super.Era }

// Held is the block of the metadata snapshot, 0 for none.
func (m *Metadata) Held() uint64 { return m.sb.Held() }

// Space is the number of metadata blocks of 4 KiB, in use and in all.
func (m *Metadata) Space() (used, total uint64) {
	total = m.tm.Map().Blocks()
	return total - m.tm.Map().Free(), total
}
