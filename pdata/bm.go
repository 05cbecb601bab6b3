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

	// MaxBlocks is how many metadata blocks can be told apart; more than the
	// largest metadata device holds (16 GiB).
	MaxBlocks = numChunks * chunkLen

	// DefaultCache is the size of the cache in bytes when nothing else is asked for.
	DefaultCache = 64 << 20
	minCache     = 64 // pages
)

// page is the content of a block in memory.
type page struct {
	nr     uint64
	data   *[BlockSize]byte // never changes once shown to readers, but for the checksum
	kind   *Kind
	used   atomic.Uint32 // looked at since the clock's hand came by
	dirty  bool          // differs from the disk
	hidden bool          // never shown to readers: changed in place
	ring   int           // place in BlockManager.ring
	sum    uint32        // of a page that readers see, with invariants only
}

// slot is a block's place in the table.
type slot struct {
	shown atomic.Pointer[page] // what readers see; nil: not cached for them
	cur   *page                // what the owner sees; nil: not cached
	fresh bool                 // cur waits for Publish
}

type chunk [chunkLen]slot

// BlockManager is the cache in front of a metadata device: checksums, bounded
// memory, write-back. (dm-block-manager.c.)
type BlockManager struct {
	env   env.Env
	dev   blk.Device
	limit int // pages that the cache may hold; changed pages of a call may exceed it

	table   [numChunks]atomic.Pointer[chunk]
	version atomic.Uint64 // odd while Publish is under way

	ring     []*page  // every cached page
	hand     int      // of the clock
	fresh    []uint64 // blocks whose slot is fresh
	dirty    []uint64 // blocks whose page became dirty; may name clean ones and repeat
	readOnly bool
}

// NewBlockManager makes a cache of cacheBytes (0: DefaultCache) over dev. It
// reads nothing. dev must not be closed before the last call.
func NewBlockManager(e env.Env, dev blk.Device, cacheBytes int) *BlockManager {
	if cacheBytes == 0 {
		cacheBytes = DefaultCache
	}
	return &BlockManager{env: e, dev: dev, limit: max(minCache, cacheBytes/BlockSize)}
}

// Blocks is the size of the device in whole blocks, as it is now.
func (bm *BlockManager) Blocks() uint64 {
	return min(bm.dev.Limits().Size/BlockSectors, MaxBlocks)
}

// SetReadOnly makes every attempt to change a block fail with EPERM.
func (bm *BlockManager) SetReadOnly(ro bool) { bm.readOnly = ro }

// ReadOnly tells what SetReadOnly said last.
func (bm *BlockManager) ReadOnly() bool { return bm.readOnly }

// Block is a block to read.
type Block struct {
	nr   uint64
	data *[BlockSize]byte
}

// Nr is the block's location.
func (b Block) Nr() uint64 { return b.nr }

// Bytes is the block's content, BlockSize bytes, which must not be changed.
func (b Block) Bytes() []byte { return b.data[:] }

// Shadow is a block that belongs to the running transaction and may be changed:
// it comes from TM.New or TM.Shadow only.
type Shadow struct{ Block }

// Data is the block's content, to be changed before the owner's call ends.
func (s Shadow) Data() []byte { return s.data[:] }

// Read gets a block, from the disk when it is not cached.
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

// get is the owner's way to a page. hidden says whether readers never see
// blocks of this use.
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

// peek is a reader's way to a page: nil when there is none to see.
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

// Version numbers the states that readers see. While it is odd they are being
// exchanged; a look-up during which it changed must be repeated. Safe for
// concurrent use.
func (bm *BlockManager) Version() uint64 { return bm.version.Load() }

// Publish shows the owner's changes to readers. show, which may be nil, runs in
// the middle, for whatever must change together with the blocks; it must be
// quick.
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

// Forget drops every page, changed ones too, and shows readers an empty cache.
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

// create gives block nr a zeroed page that the owner may change.
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

// change gives the owner a page that it may change in place of p, which is the
// current one: p itself unless readers see it.
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
