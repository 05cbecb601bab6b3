package thinmeta

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/env"
	"udm/pdata"
)

// MaxMetadataBlocks is the largest number of metadata blocks that are used.
const MaxMetadataBlocks = pdata.MaxMetadataBlocks

// maxReserve bounds the metadata blocks that are kept back for commits.
const maxReserve = 4096

// ErrMetadataFull says that no metadata block is free.
var ErrMetadataFull = fmt.Errorf("no free metadata block: %w", syscall.ENOSPC)

// Options say how to open metadata.
type Options struct {
	DataBlockSize uint32 // sectors; EINVAL if the superblock differs; 0: whatever it says
	Format        bool   // write new metadata when the superblock is all zero; else that is EPERM
	CacheBytes    int    // of the block cache; 0: 64 MiB
	ReadOnly      bool   // as after SetReadOnly; then compat_ro flags do not matter
}

// Metadata is a pool's metadata (struct dm_pool_metadata).
type Metadata struct {
	bm   *pdata.BlockManager
	tm   *pdata.TM
	data *pdata.SpaceMap

	maps    *pdata.Tree[uint64] // device id, thin block -> block and time; readers use it too
	tops    *pdata.Tree[uint64] // device id -> root of its mappings
	bottoms *pdata.Tree[uint64] // thin block -> block and time
	details *pdata.Tree[Details]

	raw    [pdata.BlockSize]byte // the superblock as it is on the disk
	super  Super                 // the superblock of the running transaction; its space map roots are stale
	shown  atomic.Uint64         // MappingRoot as readers see it
	thins  map[uint32]*Thin      // open ones, and those with details that are not written yet
	renew  []*Thin               // those whose shownSnap is stale
	failed atomic.Bool           // nothing works any more

	inService bool  // something was changed since Open: from now on commits write
	touched   bool  // something was changed in this transaction
	broken    error // why this transaction must be aborted
	reserve   uint64
	preCommit func() error
	batch     bool // Batch runs
	unshown   bool // readers see something that is not true any more

	behind atomic.Bool // readers see all that is mapped, but for blocks that were not mapped before
}

// Open opens the metadata on dev, or makes it. dev stays the caller's and must
// outlive the Metadata.
func Open(e env.Env, dev blk.Device, o Options) (*Metadata, error) {
	m := &Metadata{bm: pdata.NewBlockManager(e, dev, o.CacheBytes), thins: make(map[uint32]*Thin)}
	if err := m.open(o); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Metadata) open(o Options) error {
	if err := m.bm.ReadRaw(superBlock, m.raw[:]); err != nil {
		return pdata.In("superblock", err)
	}
	if isZero(m.raw[:]) {
		if !o.Format || o.ReadOnly {
			return syscall.EPERM
		}
		return m.format(o.DataBlockSize)
	}
	m.bm.SetReadOnly(o.ReadOnly)
	if err := m.load(); err != nil {
		return err
	}
	s := &m.super
	if o.DataBlockSize != 0 && o.DataBlockSize != s.DataBlockSize || s.Incompat != 0 || s.CompatRO != 0 && !o.ReadOnly {
		return syscall.EINVAL
	}
	return m.openMaps()
}

func isZero(p []byte) bool { return !slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) }

// load takes over the superblock that is in raw.
func (m *Metadata) load() error {
	if reason := KindSuper.Verify(m.raw[:], superBlock); reason != "" {
		return &pdata.Corrupt{Block: superBlock, Path: []uint64{superBlock}, Reason: reason}
	}
	m.super.Decode(m.raw[:])
	return nil
}

func (m *Metadata) openMaps() (err error) {
	if m.tm == nil {
		m.tm, err = pdata.OpenTM(m.bm, m.super.Metadata)
		m.setTypes()
	} else {
		err = m.tm.Reopen(m.super.Metadata)
	}
	if err != nil {
		return err
	}
	m.data = pdata.OpenSpaceMap(m.tm, m.super.Data)
	m.setReserve()
	m.publish()
	return nil
}

func (m *Metadata) setReserve() { m.reserve = min(maxReserve, m.tm.Map().Blocks()/10) }

// setTypes says what the values of the trees refer to.
func (m *Metadata) setTypes() {
	block := func(v uint64) uint64 { return v >> 24 }
	inc := func(v []byte, n int) error {
		return pdata.Runs(v, n, block, func(b, e uint64) error { return m.data.Inc(b, e) })
	}
	dec := func(v []byte, n int) error {
		return pdata.Runs(v, n, block, func(b, e uint64) error { return m.data.Dec(b, e) })
	}
	same := func(a, b []byte) bool { return block(le.Uint64(a)) == block(le.Uint64(b)) }
	m.maps = pdata.NewTree(m.tm, pdata.U64).Levels(2).Refs(inc, dec, same)
	m.bottoms = pdata.NewTree(m.tm, pdata.U64).Refs(inc, dec, same)
	m.tops = pdata.NewTree(m.tm, pdata.U64).Refs(m.tm.IncAll, m.delBottoms, func(a, b []byte) bool { return true })
	m.details = pdata.NewTree(m.tm, detailsCodec)
}

func (m *Metadata) delBottoms(v []byte, n int) error {
	for i := range n {
		if err := m.bottoms.Del(le.Uint64(v[8*i:])); err != nil {
			return err
		}
	}
	return nil
}

// format makes new metadata: the one time that blocks are written that the
// superblock, which is all zero, does not protect.
func (m *Metadata) format(dataBlockSize uint32) (err error) {
	if dataBlockSize == 0 {
		return syscall.EINVAL
	}
	if m.tm, err = pdata.Format(m.bm, superBlock); err != nil {
		return noSpace(err)
	}
	m.setTypes()
	if m.data, err = pdata.NewSpaceMap(m.tm); err != nil {
		return noSpace(err)
	}
	m.super = Super{Version: superVersion, DataBlockSize: dataBlockSize,
		MetadataBlockSize: pdata.BlockSectors, MetadataBlocks: min(m.bm.Blocks(), MaxMetadataBlocks)}
	if m.super.MappingRoot, err = m.maps.Empty(); err != nil {
		return noSpace(err)
	}
	if m.super.DetailsRoot, err = m.details.Empty(); err != nil {
		return noSpace(err)
	}
	m.setReserve()
	if err := m.write(); err != nil {
		return noSpace(err)
	}
	m.publish()
	return nil
}

// Close commits what is not committed and ends the use of m. It does nothing and
// returns EBUSY while thins are open.
func (m *Metadata) Close() error {
	for _, t := range m.thins {
		if t.opens > 0 {
			return syscall.EBUSY
		}
	}
	var err error
	if !m.failed.Load() && !m.bm.ReadOnly() {
		err = m.Commit()
	}
	m.failed.Store(true)
	return err
}

// change runs a function that changes metadata and shows the result to readers.
func (m *Metadata) change(fn func() error) error {
	return m.add(func() error {
		m.unshown = true
		return fn()
	})
}

// add is change for what makes nothing untrue that readers see, unless fn sets
// unshown: they may fall behind. So the nodes on the way to a new mapping are
// copied once for many of them, not for each.
func (m *Metadata) add(fn func() error) error {
	if err := m.changeable(); err != nil {
		return err
	}
	m.inService, m.touched = true, true
	err := fn()
	if err == nil {
		m.unshown = m.unshown || m.bm.Crowded()
		m.showChanges()
		err = m.bm.Settle()
	}
	m.broken = noSpace(err)
	return m.broken
}

// Batch runs fn, which may make any calls. What they change is shown to readers
// all at once when fn is done, or at a Show or Commit in it: that is cheaper than
// after each call.
func (m *Metadata) Batch(fn func()) {
	m.batch = true
	fn()
	m.batch = false
	m.showChanges()
}

// showChanges lets readers see that what they see is not true any more.
func (m *Metadata) showChanges() {
	if m.unshown && !m.batch {
		m.Show()
	}
}

// Show lets readers see everything, within Batch too.
func (m *Metadata) Show() {
	if (m.unshown || m.behind.Load()) && m.broken == nil {
		m.publish()
	}
}

// changeable says why nothing can be changed now. Methods ask it before they
// look for errors of their own.
func (m *Metadata) changeable() error {
	switch {
	case m.failed.Load():
		return syscall.EINVAL
	case m.bm.ReadOnly():
		return syscall.EPERM
	}
	return m.broken
}

func (m *Metadata) usable() error {
	if m.failed.Load() {
		return syscall.EINVAL
	}
	return nil
}

// publish shows readers what the owner sees.
func (m *Metadata) publish() {
	m.unshown = false
	m.bm.Publish(m.show)
}

func (m *Metadata) show() {
	m.shown.Store(m.super.MappingRoot)
	m.behind.Store(false)
	for _, t := range m.renew {
		t.shownSnap.Store(t.d.Snapshotted)
	}
	m.renew = m.renew[:0]
}

// noSpace tells running out of metadata from running out of data.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return ErrMetadataFull
	}
	return err
}
