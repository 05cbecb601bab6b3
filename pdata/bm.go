package pdata

import (
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/env"
)

const (
	chunkShift = 10
	chunkLen   = 1 << chunkShift
	numChunks  = 4096

	// MaxBlocks is the number of blocks that a BlockManager can address. It
	// exceeds the largest metadata device (16 GiB).
	MaxBlocks = numChunks * chunkLen

	// DefaultCache is the default size of the cache in bytes.
	DefaultCache = 64 << 20
	minCache     = 64 // pages
)

// page is the content of a block in memory.
type page struct {
	nr     uint64
	data   *[BlockSize]byte // once published, only the header changes
	kind   *Kind
	used   atomic.Uint32 // accessed since the clock hand last passed
	dirty  bool          // differs from the disk
	going  bool          // is being written: stays in the cache, and does not change
	hidden bool          // never published to readers: changed in place
	ring   int           // index in BlockManager.ring
	sum    uint32        // checksum of a published page; only with invariants
}

// slot is a block's entry in the table.
type slot struct {
	shown atomic.Pointer[page] // what readers see; nil: not cached for them
	cur   *page                // what the owner sees; nil: not cached
	fresh bool                 // cur is not published yet
}

type chunk [chunkLen]slot

// BlockManager is the cache in front of a metadata device: checksums, bounded
// memory, write-back. (dm-block-manager.c.)
type BlockManager struct {
	env   env.Env
	dev   blk.Device
	limit int // pages in the cache; pages changed within one call may exceed it

	table   [numChunks]atomic.Pointer[chunk]
	version atomic.Uint64 // odd while Publish is under way

	ring     []*page  // every cached page
	hand     int      // clock hand, an index in ring
	fresh    []uint64 // blocks whose slot is fresh
	dirty    []uint64 // blocks whose page became dirty; may contain clean ones and duplicates
	readOnly bool
	// doubtful: the superblock that was read may be only in a volatile cache.
	doubtful atomic.Bool
}

// NewBlockManager makes a cache of cacheBytes (0: DefaultCache) over dev. It
// reads nothing. dev must stay open until the last call has returned.
func NewBlockManager(e env.Env, dev blk.Device, cacheBytes int) *BlockManager {
	if cacheBytes == 0 {
		cacheBytes = DefaultCache
	}
	return &BlockManager{env: e, dev: dev, limit: max(minCache, cacheBytes/BlockSize)}
}

// Blocks is the current size of the device in whole blocks.
func (bm *BlockManager) Blocks() uint64 {
	return min(bm.dev.Limits().Size/BlockSectors, MaxBlocks)
}

// SetReadOnly makes every attempt to change a block fail with EPERM.
func (bm *BlockManager) SetReadOnly(ro bool) { bm.readOnly = ro }

// ReadOnly reports whether changes are refused.
func (bm *BlockManager) ReadOnly() bool { return bm.readOnly }

// Block is a block to read.
type Block struct {
	nr   uint64
	data *[BlockSize]byte
}

// Nr is the block's location.
func (b Block) Nr() uint64 { return b.nr }

// Bytes is the block's content, BlockSize bytes. The caller must not change it.
func (b Block) Bytes() []byte { return b.data[:] }

// Shadow is a block that belongs to the running transaction and may be changed.
// Only TM.New and TM.Shadow return one.
type Shadow struct{ Block }

// Data is the block's content. It may be changed until the owner's call ends.
func (s Shadow) Data() []byte { return s.data[:] }

// Read returns a block, reading it from disk if it is not cached.
func (bm *BlockManager) Read(nr uint64, k *Kind) (Block, error) {
	p, err := bm.get(nr, k, true)
	if err != nil {
		return Block{}, err
	}
	return Block{nr, p.data}, nil
}

func (bm *BlockManager) slot(nr uint64) *slot {
	c := bm.table[nr>>chunkShift].Load()
	if c == nil {
		c = new(chunk)
		bm.table[nr>>chunkShift].Store(c)
	}
	return &c[nr%chunkLen]
}

// get returns a page to the owner. hidden states that readers never see blocks of
// this kind of use.
func (bm *BlockManager) get(nr uint64, k *Kind, hidden bool) (*page, error) {
	if nr >= MaxBlocks {
		return nil, corrupt(nr, "beyond the metadata device of %d blocks", bm.Blocks())
	}
	s := bm.slot(nr)
	if p := s.cur; p != nil {
		if p.kind != k {
			return nil, corrupt(nr, "is a %s and a %s at once", p.kind.Name, k.Name)
		}
		p.touch()
		return p, nil
	}
	p, err := bm.load(nr, k, hidden)
	if err != nil {
		return nil, err
	}
	bm.admit(p)
	s.cur = p
	if !hidden {
		p.show()
		s.shown.Store(p)
	}
	return p, nil
}

func (p *page) touch() {
	if p.used.Load() == 0 {
		p.used.Store(1)
	}
}

// peek returns the published page of a block to a reader, or nil if none is
// cached.
func (bm *BlockManager) peek(nr uint64) *page {
	if nr >= MaxBlocks {
		return nil
	}
	c := bm.table[nr>>chunkShift].Load()
	if c == nil {
		return nil
	}
	p := c[nr%chunkLen].shown.Load()
	if p != nil {
		p.touch()
	}
	return p
}

// Version numbers the states that readers see. It is odd while a new state is
// being published; a lookup during which it changed must be repeated. Version is
// safe for concurrent use.
func (bm *BlockManager) Version() uint64 { return bm.version.Load() }

// Publish makes the owner's changes visible to readers. show, which may be nil,
// runs in the middle and changes whatever must change together with the blocks;
// it must be quick.
func (bm *BlockManager) Publish(show func()) {
	bm.version.Add(1)
	for _, nr := range bm.fresh {
		s := bm.slot(nr)
		s.fresh = false
		if s.cur.hidden {
			s.shown.Store(nil)
		} else {
			s.cur.show()
			s.shown.Store(s.cur)
		}
	}
	bm.fresh = bm.fresh[:0]
	if show != nil {
		show()
	}
	bm.version.Add(1)
}

// Forget drops every page, dirty ones too; readers then see an empty cache.
func (bm *BlockManager) Forget(show func()) {
	bm.version.Add(1)
	for i := range bm.table {
		bm.table[i].Store(nil)
	}
	bm.ring, bm.hand, bm.fresh, bm.dirty = nil, 0, nil, nil
	if show != nil {
		show()
	}
	bm.version.Add(1)
}

// create makes a zeroed page for block nr that the owner may change.
func (bm *BlockManager) create(nr uint64, k *Kind, hidden bool) (*page, error) {
	if bm.readOnly {
		return nil, syscall.EPERM
	}
	if nr >= MaxBlocks {
		return nil, corrupt(nr, "beyond the metadata device of %d blocks", bm.Blocks())
	}
	p := &page{nr: nr, data: new([BlockSize]byte), kind: k, hidden: hidden}
	bm.replace(p)
	return p, nil
}

// change returns the page that the owner may change instead of p, the current
// one: p itself, or a copy if readers see p.
func (bm *BlockManager) change(p *page) (*page, error) {
	if bm.readOnly {
		return nil, syscall.EPERM
	}
	if bm.slot(p.nr).shown.Load() == p {
		p.checkShown()
		q := &page{nr: p.nr, data: new([BlockSize]byte), kind: p.kind, dirty: p.dirty}
		*q.data = *p.data
		bm.replace(q)
		return q, nil
	}
	bm.markDirty(p)
	return p, nil
}

// replace makes p the owner's page of its block, dirty and fresh.
func (bm *BlockManager) replace(p *page) {
	s := bm.slot(p.nr)
	if old := s.cur; old != nil {
		p.ring = old.ring
		bm.ring[p.ring] = p
	} else {
		bm.admit(p)
	}
	s.cur = p
	if !s.fresh {
		s.fresh = true
		bm.fresh = append(bm.fresh, p.nr)
	}
	p.touch()
	bm.markDirty(p)
}

func (bm *BlockManager) markDirty(p *page) {
	if !p.dirty {
		p.dirty = true
		bm.dirty = append(bm.dirty, p.nr)
	}
}
