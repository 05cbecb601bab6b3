package cachetools

import (
	"errors"
	"fmt"
	"io"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/cache/cachemeta"
	"udm/targets/internal/xmltag"
)

// RestoreOptions control Restore and Repair.
type RestoreOptions struct {
	Version uint32 // of the metadata; 0: 1 for Restore, that of the damaged metadata for Repair
	Unclean bool   // leave the clean-shutdown flag out
}

// Restore writes new metadata to dev from XML, whatever dev held before.
func Restore(e env.Env, r io.Reader, dev blk.Device, o RestoreOptions) error {
	if o.Version == 0 {
		o.Version = 1
	}
	b, err := newBuilder(e, dev, o)
	if err != nil {
		return err
	}
	x := &xmlReader{Reader: xmltag.NewReader(r), out: b}
	if err := x.read(); err != nil {
		b.bulk.Abandon()
		if errors.Is(err, pdata.ErrFull) {
			return pdata.ErrFull
		}
		return fmt.Errorf("line %d: %w", x.Line, err)
	}
	return nil
}

// Repair writes new metadata to out from what is readable on in, which is not changed.
// Without a clean shutdown, or with damaged dirty bits, blocks are dirty in doubt.
func Repair(e env.Env, in, out blk.Device, damage func(error)) error {
	s, err := cachemeta.ReadSuper(e, in)
	if err != nil {
		return err
	}
	b, err := newBuilder(e, out, RestoreOptions{Version: s.Version, Unclean: !s.Clean()})
	if err != nil {
		return err
	}
	if err := emit(e, in, DumpOptions{Repair: true, Damage: damage}, b); err != nil {
		b.bulk.Abandon()
		return err
	}
	return nil
}

// builder is an emitter that builds metadata bottom up.
type builder struct {
	o        RestoreOptions
	bulk     *pdata.Bulk
	super    cachemeta.Super
	mappings []uint64
	dirty    []uint64
	hints    []uint32
	seen     map[uint64]bool
	discards []uint64
}

func newBuilder(e env.Env, dev blk.Device, o RestoreOptions) (*builder, error) {
	bulk, err := pdata.NewBulk(e, dev, cachemeta.SuperBlock)
	return &builder{o: o, bulk: bulk, seen: map[uint64]bool{}}, err
}

func (b *builder) begin(s *cachemeta.Super) error {
	if b.o.Version < 1 || b.o.Version > 2 {
		return fmt.Errorf("metadata version %d: not 1 or 2", b.o.Version)
	}
	if s.HintSize != 0 && s.HintSize != 4 {
		return fmt.Errorf("hints of %d bytes: only 4 are known", s.HintSize)
	}
	if n := uint64(s.CacheBlocks); n/uint64(pdata.ArrayEntries(8)) >= b.bulk.Blocks() {
		return pdata.ErrFull
	}
	b.super = cachemeta.Super{Version: b.o.Version, BlockSize: s.BlockSize, MetadataBlockSize: pdata.BlockSectors, CacheBlocks: s.CacheBlocks,
		PolicyName: s.PolicyName, PolicyVersion: s.PolicyVersion, HintSize: s.HintSize, Stats: s.Stats,
		DiscardBlockSize: s.DiscardBlockSize, DiscardBlocks: s.DiscardBlocks}
	if !b.o.Unclean {
		b.super.Flags = cachemeta.FlagClean
	}
	b.mappings, b.hints = make([]uint64, s.CacheBlocks), make([]uint32, s.CacheBlocks)
	b.dirty = make([]uint64, words(uint64(s.CacheBlocks)))
	return nil
}

func (b *builder) mapping(m Block) error {
	if uint64(m.CBlock) >= uint64(len(b.mappings)) || m.OBlock>>48 != 0 {
		return fmt.Errorf("block %d of %d of the cache is block %d of the origin", m.CBlock, len(b.mappings), m.OBlock)
	}
	if b.seen[m.OBlock] {
		return fmt.Errorf("block %d of the origin is in the cache twice", m.OBlock)
	}
	b.seen[m.OBlock] = true
	v := cachemeta.Mapping{OBlock: m.OBlock, Flags: cachemeta.Valid}
	if m.Dirty && b.o.Version >= 2 {
		b.dirty[m.CBlock/64] |= 1 << (m.CBlock % 64)
	} else if m.Dirty {
		v.Flags |= cachemeta.Dirty
	}
	b.mappings[m.CBlock] = v.Value()
	return nil
}

func (b *builder) hint(cb, hint uint32) error {
	if uint64(cb) >= uint64(len(b.hints)) {
		return fmt.Errorf("hint for block %d of %d", cb, len(b.hints))
	}
	b.hints[cb] = hint
	return nil
}

func (b *builder) discard(begin, end uint64) error {
	if begin >= end || end > 1<<20 {
		return fmt.Errorf("discarded blocks %d to %d", begin, end)
	}
	for uint64(len(b.discards)) < words(end) {
		b.discards = append(b.discards, 0)
	}
	for i := begin; i < end; i++ {
		b.discards[i/64] |= 1 << (i % 64)
	}
	return nil
}

func (b *builder) end() (err error) {
	s := &b.super
	if s.Mappings, err = b.array64(b.mappings); err != nil {
		return err
	}
	if s.Version >= 2 {
		if s.DirtyRoot, err = b.array64(b.dirty); err != nil {
			return err
		}
	}
	if s.HintSize == 4 {
		if s.Hints, err = b.array32(b.hints); err != nil {
			return err
		}
	}
	if s.DiscardBlockSize == 0 { // the text does not say it
		s.DiscardBlocks, b.discards = 0, nil
	}
	for uint64(len(b.discards)) < words(s.DiscardBlocks) {
		b.discards = append(b.discards, 0)
	}
	if s.Discards, err = b.array64(b.discards); err != nil {
		return err
	}
	if s.Metadata, err = b.bulk.MetadataMap(); err != nil {
		return err
	}
	var p [pdata.BlockSize]byte
	s.Encode(p[:])
	return b.bulk.Finish(cachemeta.SuperBlock, cachemeta.KindSuper, p[:])
}

func (b *builder) array64(values []uint64) (root uint64, err error) {
	a := b.bulk.NewArrayBuilder(8)
	var p [8]byte
	for _, v := range values {
		le.PutUint64(p[:], v)
		if err := a.Add(p[:]); err != nil {
			return 0, err
		}
	}
	return a.Finish()
}

func (b *builder) array32(values []uint32) (root uint64, err error) {
	a := b.bulk.NewArrayBuilder(4)
	var p [4]byte
	for _, v := range values {
		le.PutUint32(p[:], v)
		if err := a.Add(p[:]); err != nil {
			return 0, err
		}
	}
	return a.Finish()
}
