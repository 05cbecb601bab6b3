package thintools

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// Overrides replace values of a superblock; zero means no override.
type Overrides struct {
	TransactionID uint64
	DataBlockSize uint32 // sectors
	DataBlocks    uint64
}

func (o Overrides) apply(h *Header) {
	if o.TransactionID != 0 {
		h.TransactionID = o.TransactionID
	}
	if o.DataBlockSize != 0 {
		h.DataBlockSize = o.DataBlockSize
	}
	if o.DataBlocks != 0 {
		h.DataBlocks = o.DataBlocks
	}
}

// RestoreOptions control Restore.
type RestoreOptions struct {
	Overrides Overrides
	Progress  func(done uint64) // mapped blocks so far; may be nil
}

// Restore writes new metadata to dev from XML, whatever dev held before. The
// needs_check flag and a metadata snapshot are not restored. It needs little more
// memory than one byte for each data block in use.
func Restore(e env.Env, r io.Reader, dev blk.Device, o RestoreOptions) error {
	out, err := newRestorer(e, dev, o)
	if err != nil {
		return err
	}
	if err := readXML(r, out); err != nil {
		out.bulk.Abandon()
		return full(err)
	}
	return nil
}

// full removes the position in the text from the error when dev is full.
func full(err error) error {
	if errors.Is(err, thinmeta.ErrMetadataFull) {
		return thinmeta.ErrMetadataFull
	}
	return err
}

// restorer is an emitter that builds metadata bottom up.
type restorer struct {
	o      RestoreOptions
	bulk   *pdata.Bulk
	h      Header
	refs   *pdata.RefCounts
	done   uint64
	roots  map[uint32]uint64
	devs   map[uint32]thinmeta.Details
	id     uint32
	tree   *pdata.Builder // of device id
	mapped uint64
}

func newRestorer(e env.Env, dev blk.Device, o RestoreOptions) (*restorer, error) {
	bulk, err := pdata.NewBulk(e, dev, thinmeta.SuperBlock)
	return &restorer{o: o, bulk: bulk, refs: pdata.NewRefCounts(), roots: map[uint32]uint64{}, devs: map[uint32]thinmeta.Details{}}, err
}

func (r *restorer) begin(h Header) error {
	r.o.Overrides.apply(&h)
	if s := h.DataBlockSize; s < 128 || s > 1<<21 || s%128 != 0 {
		return fmt.Errorf("data_block_size is %d sectors: not a multiple of 128 up to %d", s, 1<<21)
	}
	r.h = h
	return nil
}

func (r *restorer) device(id uint32, d thinmeta.Details) error {
	if _, ok := r.roots[id]; ok || id > thinmeta.MaxID {
		return fmt.Errorf("device %d: id is used twice or is above %d", id, thinmeta.MaxID)
	}
	r.id, r.mapped, r.tree = id, 0, r.bulk.NewBuilder(8)
	r.devs[id] = d
	return nil
}

func (r *restorer) run(m Run) error {
	if m.Len == 0 || m.Data >= r.h.DataBlocks || m.Len > r.h.DataBlocks-m.Data || m.Thin+m.Len < m.Thin || m.Time >= 1<<24 {
		return fmt.Errorf("device %d: blocks %d+%d are mapped to %d of %d data blocks at time %d", r.id, m.Thin, m.Len, m.Data, r.h.DataBlocks, m.Time)
	}
	var p [8]byte
	for i := range m.Len {
		le.PutUint64(p[:], thinmeta.BlockTime{Block: m.Data + i, Time: m.Time}.Value())
		if err := r.tree.Add(m.Thin+i, p[:]); err != nil {
			return fmt.Errorf("device %d: %w", r.id, err)
		}
		r.refs.Add(m.Data+i, 1)
		r.progress()
	}
	r.mapped += m.Len
	return nil
}

func (r *restorer) progress() {
	if r.done++; r.o.Progress != nil && r.done%(1<<16) == 0 {
		r.o.Progress(r.done)
	}
}

func (r *restorer) endDevice() (err error) {
	d := r.devs[r.id]
	d.Mapped = r.mapped
	r.devs[r.id] = d
	r.roots[r.id], err = r.tree.Finish()
	return err
}

func (r *restorer) end() error {
	s := thinmeta.Super{Version: thinmeta.SuperVersion, Time: r.h.Time, TransactionID: r.h.TransactionID, DataBlockSize: r.h.DataBlockSize,
		MetadataBlockSize: pdata.BlockSectors, MetadataBlocks: r.bulk.Blocks()}
	copy(s.UUID[:], r.h.UUID)
	var err error
	if s.MappingRoot, s.DetailsRoot, err = r.deviceTrees(); err != nil {
		return err
	}
	if s.Data, err = r.bulk.DataMap(r.h.DataBlocks, r.refs); err != nil {
		return err
	}
	if s.Metadata, err = r.bulk.MetadataMap(); err != nil {
		return err
	}
	var p [pdata.BlockSize]byte
	s.Encode(p[:])
	return r.bulk.Finish(thinmeta.SuperBlock, thinmeta.KindSuper, p[:])
}

func (r *restorer) deviceTrees() (mapping, details uint64, err error) {
	tops, devs := r.bulk.NewBuilder(8), r.bulk.NewBuilder(thinmeta.DetailsSize)
	for _, id := range slices.Sorted(maps.Keys(r.roots)) {
		var p [thinmeta.DetailsSize]byte
		thinmeta.DetailsCodec.Put(p[:], r.devs[id])
		if err := devs.Add(uint64(id), p[:]); err != nil {
			return 0, 0, err
		}
		le.PutUint64(p[:], r.roots[id])
		if err := tops.Add(uint64(id), p[:8]); err != nil {
			return 0, 0, err
		}
	}
	if mapping, err = tops.Finish(); err != nil {
		return 0, 0, err
	}
	details, err = devs.Finish()
	return mapping, details, err
}
