// Package prison holds bios while the blocks that they address are being changed
// (drivers/md/dm-bio-prison-v1.c).
//
// A [Cell] locks a range of blocks of one device. The first bio detained on a
// range is the cell's holder. Bios detained while a cell overlaps their range
// become its inmates and no longer belong to their submitter. The caller that
// obtained the cell releases it in one of several ways.
//
//	free ─ Detain ─► held ─ Release, ReleaseNoHolder, VisitRelease, Error ─► free
//	                  │ ▲
//	                  └─┘ Detain of an overlapping range: one more inmate
//
// No function issues or ends a bio under a lock: they return lists.
//
// A cell of one block, by far the most common, is in one of 16 shards. A wider
// cell is in every shard, so that a lookup needs only one shard.
//
// Lock order: the shards in the order of their index, then a wide cell's mu.
package prison

import (
	"slices"
	"sync"

	"udm/blk"
	"udm/dm"
)

// Key is the range that a cell locks: blocks [Begin, End) of a device, in its
// virtual address space or in the one it is mapped to. It is not empty.
type Key struct {
	Begin, End uint64
	Dev        uint32
	Virtual    bool
}

// Block is the key of one block.
func Block(virtual bool, dev uint32, block uint64) Key {
	return Key{block, block + 1, dev, virtual}
}

func (k Key) overlaps(o Key) bool {
	return k.Dev == o.Dev && k.Virtual == o.Virtual && k.Begin < o.End && o.Begin < k.End
}

func (k Key) wide() bool { return k.End-k.Begin > 1 }

// Cell is a locked range. It belongs to the caller that detained it, until its
// release.
type Cell struct {
	Key
	Holder *dm.Clone // may be nil

	mu   sync.Mutex   // for wide cells, whose inmates come through any shard
	bios dm.CloneList // guarded by the shard's mu (narrow) or mu (wide)
}

// Inmates are the waiting bios, without the holder. Call it only within the
// function of VisitRelease, which must remove them.
func (c *Cell) Inmates() *dm.CloneList { return &c.bios }

func (c *Cell) add(b *dm.Clone) {
	if b == nil {
		return
	}
	if c.wide() {
		c.mu.Lock()
		defer c.mu.Unlock()
	}
	c.bios.Push(b)
}

const shards = 16

// Prison is a set of cells. All methods are safe for concurrent use.
type Prison struct {
	shards [shards]shard
	free   sync.Pool // *Cell
}

type shard struct {
	mu     sync.Mutex
	narrow map[Key]*Cell // guarded by mu
	wide   []*Cell       // guarded by mu; the same ones in every shard
	_      [64]byte
}

// New returns an empty prison.
func New() *Prison {
	p := &Prison{}
	p.free.New = func() any { return &Cell{} }
	for i := range p.shards {
		p.shards[i].narrow = make(map[Key]*Cell)
	}
	return p
}

func (p *Prison) shard(k Key) *shard {
	h := k.Begin*0x9e3779b97f4a7c15 + uint64(k.Dev)*0xff51afd7ed558ccd
	if k.Virtual {
		h = ^h
	}
	return &p.shards[h>>60]
}

// Detain locks k with b, which may be nil, as holder. If a cell already overlaps
// k, Detain returns nil and b waits in that cell; b no longer belongs to the
// caller.
func (p *Prison) Detain(k Key, b *dm.Clone) *Cell {
	if k.wide() {
		return p.detainWide(k, b)
	}
	s := p.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.find(k); c != nil {
		c.add(b)
		return nil
	}
	c := p.newCell(k, b)
	s.narrow[k] = c
	return c
}

// find returns a cell that overlaps k, as far as this shard knows. Called with
// mu held.
func (s *shard) find(k Key) *Cell {
	if c := s.narrow[k]; c != nil {
		return c
	}
	i := slices.IndexFunc(s.wide, func(c *Cell) bool { return c.overlaps(k) })
	if i < 0 {
		return nil
	}
	return s.wide[i]
}

func (p *Prison) detainWide(k Key, b *dm.Clone) *Cell {
	p.lockAll()
	defer p.unlockAll()
	if c := p.overlapping(k); c != nil {
		c.add(b)
		return nil
	}
	c := p.newCell(k, b)
	for i := range p.shards {
		p.shards[i].wide = append(p.shards[i].wide, c)
	}
	return c
}

// overlapping is find over all shards, for wide keys. Called with all locks.
func (p *Prison) overlapping(k Key) *Cell {
	if c := p.shards[0].find(k); c != nil {
		return c
	}
	for i := range p.shards {
		for _, c := range p.shards[i].narrow {
			if c.overlaps(k) {
				return c
			}
		}
	}
	return nil
}

func (p *Prison) lockAll() {
	for i := range p.shards {
		p.shards[i].mu.Lock()
	}
}

func (p *Prison) unlockAll() {
	for i := range p.shards {
		p.shards[i].mu.Unlock()
	}
}

func (p *Prison) newCell(k Key, b *dm.Clone) *Cell {
	c := p.free.Get().(*Cell)
	c.Key, c.Holder = k, b
	return c
}

// VisitRelease calls fn on the cell, and unlocks its range in the same critical
// section: no bio can join the cell between what fn sees and the release. fn
// takes the inmates away; it must not issue or end bios, nor call the prison.
func (p *Prison) VisitRelease(c *Cell, fn func(*Cell)) {
	p.erase(c, fn)
	c.Holder = nil
	p.free.Put(c)
}

func (p *Prison) erase(c *Cell, fn func(*Cell)) {
	if !c.wide() {
		s := p.shard(c.Key)
		s.mu.Lock()
		defer s.mu.Unlock()
		fn(c)
		delete(s.narrow, c.Key)
		return
	}
	p.lockAll()
	defer p.unlockAll()
	fn(c)
	for i := range p.shards {
		s := &p.shards[i]
		n := slices.Index(s.wide, c)
		s.wide = slices.Delete(s.wide, n, n+1)
	}
}

// Release unlocks the cell's range and returns the holder, if there is one,
// followed by the inmates.
func (p *Prison) Release(c *Cell) (bios dm.CloneList) {
	p.VisitRelease(c, func(c *Cell) {
		bios = c.bios.Take()
		if c.Holder != nil {
			bios.PushHead(c.Holder)
		}
	})
	return bios
}

// ReleaseNoHolder is Release without the holder, which stays the caller's.
func (p *Prison) ReleaseNoHolder(c *Cell) (bios dm.CloneList) {
	p.VisitRelease(c, func(c *Cell) { bios = c.bios.Take() })
	return bios
}

// Error releases the cell and ends the holder and the inmates with st.
func (p *Prison) Error(c *Cell, st blk.Status) {
	bios := p.Release(c)
	for b := bios.Pop(); b != nil; b = bios.Pop() {
		b.Complete(st)
	}
}
