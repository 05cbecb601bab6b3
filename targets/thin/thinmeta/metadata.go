package thinmeta

import (
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

// MaxMetadataBlocks is the largest usable number of metadata blocks of 4 KiB.
const MaxMetadataBlocks = pdata.MaxMetadataBlocks

// maxReserve bounds the metadata blocks that are reserved for commits.
const maxReserve = 4096

// ErrMetadataFull is returned when no metadata block is free.
var ErrMetadataFull = pdata.ErrFull

// Options control Open.
type Options struct {
	DataBlockSize uint32 // sectors; EINVAL if the superblock differs; 0: as in the superblock
	Format        bool   // create metadata if the superblock is all zero; without it that is EPERM
	CacheBytes    int    // size of the block cache; 0: 64 MiB
	ReadOnly      bool   // as if SetReadOnly was called; unknown compat_ro flags are accepted
}

// Metadata is a pool's metadata (struct dm_pool_metadata).
type Metadata struct {
	bm   *pdata.BlockManager
	tm   *pdata.TM
	sb   *pdata.Super
	data *pdata.SpaceMap

	maps    *pdata.Tree[uint64] // device id, thin block -> block and time; readers use it too
	tops    *pdata.Tree[uint64] // device id -> root of its mappings
	bottoms *pdata.Tree[uint64] // thin block -> block and time
	details *pdata.Tree[Details]

	super   Super            // of the running transaction; sb has that of the last commit
	thins   map[uint32]*Thin // those that are open or have unwritten details
	reserve uint64
	plenty  uint64         // number of free blocks that suffices for any Insert; 0: not computed yet
	taken   pdata.BlockSet // reserved data blocks: not referred to, but not to be allocated
	readers readers

	deletion deletion
}

// readers is the state that TryFind sees.
type readers struct {
	root  atomic.Uint64 // MappingRoot
	renew []*Thin       // thins whose shownSnap is stale

	batch   bool        // Batch runs
	unshown bool        // readers see mappings that are no longer true
	behind  atomic.Bool // readers lack new mappings of previously unmapped blocks
}

// Open opens the metadata on dev, or creates it. The caller keeps ownership of dev,
// which must outlive the Metadata.
func Open(e env.Env, dev blk.Device, o Options) (*Metadata, error) {
	m := &Metadata{bm: pdata.NewBlockManager(e, dev, o.CacheBytes), thins: make(map[uint32]*Thin)}
	if err := m.open(o); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Metadata) open(o Options) error {
	sb, fresh, err := pdata.OpenSuper(m.bm, superFormat, fields{m})
	if err != nil {
		return err
	}
	m.sb = sb
	if fresh {
		if !o.Format || o.ReadOnly {
			return syscall.EPERM
		}
		return m.format(o.DataBlockSize)
	}
	m.bm.SetReadOnly(o.ReadOnly)
	if err := sb.Load(); err != nil {
		return err
	}
	s := &m.super
	if o.DataBlockSize != 0 && o.DataBlockSize != s.DataBlockSize || s.Incompat != 0 || s.CompatRO != 0 && !o.ReadOnly {
		return syscall.EINVAL
	}
	if err := sb.Open(); err != nil {
		return err
	}
	m.publish()
	return nil
}

// fields is the pool's own part of the superblock.
type fields struct{ m *Metadata }

func (f fields) Load(p []byte) {
	f.m.super.Decode(p)
	f.m.show()
}

func (f fields) Open(tm *pdata.TM) error {
	m := f.m
	if m.tm == nil {
		m.tm = tm
		m.setTypes()
	}
	m.data = pdata.OpenSpaceMap(tm, m.super.Data)
	m.setReserve()
	return nil
}

func (f fields) Save(p []byte) error {
	m := f.m
	if err := m.writeDetails(); err != nil {
		return err
	}
	m.data.Seal()
	m.super.Data = m.data.Root()
	m.super.Encode(p)
	return nil
}

func (m *Metadata) setReserve() {
	m.reserve = min(maxReserve, m.tm.Map().Blocks()/10)
	m.plenty = 0
}

// setTypes sets what the values of the trees refer to.
func (m *Metadata) setTypes() {
	block := func(v uint64) uint64 { return v >> 24 }
	inc := func(v []byte, n int) error { return m.data.AddAll(v, n, block, 1) }
	dec := func(v []byte, n int) error { return m.data.AddAll(v, n, block, -1) }
	same := func(a, b []byte) bool { return block(le.Uint64(a)) == block(le.Uint64(b)) }
	m.maps = pdata.NewTree(m.tm, pdata.U64).Levels(2).Refs(inc, dec, same)
	m.bottoms = pdata.NewTree(m.tm, pdata.U64).Refs(inc, dec, same)
	m.tops = pdata.NewTree(m.tm, pdata.U64).Refs(m.tm.IncAll, m.delBottoms, func(a, b []byte) bool { return true })
	m.details = pdata.NewTree(m.tm, DetailsCodec)
}

func (m *Metadata) delBottoms(v []byte, n int) error {
	for i := range n {
		if err := m.bottoms.Del(le.Uint64(v[8*i:])); err != nil {
			return err
		}
	}
	return nil
}

// format creates new metadata.
func (m *Metadata) format(dataBlockSize uint32) error {
	if dataBlockSize == 0 {
		return syscall.EINVAL
	}
	err := m.sb.Format(func(tm *pdata.TM) (err error) {
		m.tm = tm
		m.setTypes()
		if m.data, err = pdata.NewSpaceMap(tm); err != nil {
			return err
		}
		m.super = Super{Version: SuperVersion, DataBlockSize: dataBlockSize,
			MetadataBlockSize: pdata.BlockSectors, MetadataBlocks: min(m.bm.Blocks(), MaxMetadataBlocks)}
		if m.super.MappingRoot, err = m.maps.Empty(); err != nil {
			return err
		}
		m.super.DetailsRoot, err = m.details.Empty()
		m.setReserve()
		return err
	})
	if err != nil {
		return err
	}
	return m.durable()
}

// Close commits pending changes and closes m. If thins are open it does nothing and
// returns EBUSY.
func (m *Metadata) Close() error {
	for _, t := range m.thins {
		if t.opens > 0 {
			return syscall.EBUSY
		}
	}
	var err error
	if !m.Failed() && !m.bm.ReadOnly() {
		err = m.Commit()
	}
	m.sb.Fail()
	return err
}

// change runs a function that changes metadata, and makes the result visible to
// readers.
func (m *Metadata) change(fn func() error) error {
	return m.add(func() error {
		m.readers.unshown = true
		return fn()
	})
}

// add runs a change after which everything that readers see is still true, unless fn
// sets unshown. Readers may fall behind, so that the nodes on the path to new
// mappings are copied once for many mappings, not for each.
func (m *Metadata) add(fn func() error) error {
	return m.sb.Change(func() error {
		if err := fn(); err != nil {
			return err
		}
		m.readers.unshown = m.readers.unshown || m.bm.Crowded()
		m.showChanges()
		return nil
	})
}

// Batch runs fn, which may make any calls. Their changes become visible to readers
// together when fn returns, or at a Show or Commit in it. This is cheaper than after
// each call.
func (m *Metadata) Batch(fn func()) {
	m.readers.batch = true
	fn()
	m.readers.batch = false
	m.showChanges()
}

// showChanges updates readers that see mappings that are no longer true.
func (m *Metadata) showChanges() {
	if m.readers.unshown && !m.readers.batch {
		m.Show()
	}
}

// Show makes all changes visible to readers, also within Batch.
func (m *Metadata) Show() {
	if (m.readers.unshown || m.readers.behind.Load()) && m.sb.Err() == nil {
		m.publish()
	}
}

// publish gives readers the owner's view.
func (m *Metadata) publish() {
	m.readers.unshown = false
	m.bm.Publish(m.show)
}

func (m *Metadata) show() {
	m.readers.root.Store(m.super.MappingRoot)
	m.readers.behind.Store(false)
	for _, t := range m.readers.renew {
		t.shownSnap.Store(t.d.Snapshotted)
	}
	m.readers.renew = m.readers.renew[:0]
}
