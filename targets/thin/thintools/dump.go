package thintools

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/thin/thinmeta"
)

// Snap says whether to read the metadata snapshot instead of the metadata.
type Snap struct {
	Use   bool
	Block uint64 // where it must be; 0: anywhere
}

// DumpOptions control Dump.
type DumpOptions struct {
	Human        bool        // human-readable text instead of XML
	JSON         bool        // JSON instead of XML
	Repair       bool        // skip damage, and look for other roots if need be
	Damage       func(error) // called for damage that Repair skips; may be nil
	MetadataSnap Snap        // dump the metadata snapshot instead
	Devices      []uint32    // dump only these; none: all
	SkipMappings bool
	CacheBytes   int                      // 0: 64 MiB
	Progress     func(done, total uint64) // mapped blocks; may be nil
	Overrides    Overrides                // for Repair
}

// Dump writes metadata as text: XML that Restore and thin_restore read and that is
// identical to thin_dump's, JSON, or human-readable text.
func Dump(e env.Env, dev blk.Device, w io.Writer, o DumpOptions) error {
	src := newSource(e, dev, o)
	var out emitter = &xmlEmitter{newText(w)}
	switch {
	case o.JSON:
		out = &jsonEmitter{text: newText(w)}
	case o.Human:
		out = &humanEmitter{newText(w)}
	}
	return src.emit(out)
}

// source is metadata to be read.
type source struct {
	bm     *pdata.BlockManager
	o      DumpOptions
	super  thinmeta.Super
	damage func(error) // nil: stop at damage
	done   uint64
	total  uint64
}

func newSource(e env.Env, dev blk.Device, o DumpOptions) *source {
	s := &source{bm: pdata.NewBlockManager(e, dev, o.CacheBytes), o: o}
	if o.Repair {
		s.damage = func(err error) {
			if o.Damage != nil {
				o.Damage(err)
			}
		}
	}
	return s
}

// open reads the superblock, or reconstructs it when repairing.
func (s *source) open() error {
	sb, err := thinmeta.ReadSuperAt(s.bm, thinmeta.SuperBlock)
	if err == nil && s.o.MetadataSnap.Use {
		sb, err = s.held(sb)
	}
	if s.o.Repair {
		return s.findSuper(sb, err)
	}
	if err != nil {
		return err
	}
	s.super = *sb
	return nil
}

func (s *source) held(sb *thinmeta.Super) (*thinmeta.Super, error) {
	if sb.HeldRoot == 0 {
		return nil, fmt.Errorf("no current metadata snapshot")
	}
	if want := s.o.MetadataSnap.Block; want != 0 && want != sb.HeldRoot {
		return nil, fmt.Errorf("the metadata snapshot is at block %d, not %d", sb.HeldRoot, want)
	}
	sb, err := thinmeta.ReadSuperAt(s.bm, sb.HeldRoot)
	return sb, pdata.In("metadata snapshot", err)
}

// details reads the details of all devices.
func (s *source) details() (map[uint32]thinmeta.Details, error) {
	devs := map[uint32]thinmeta.Details{}
	err := s.leaves(s.super.DetailsRoot, thinmeta.DetailsSize, func(k uint64, v []byte) error {
		devs[uint32(k)] = thinmeta.DetailsCodec.Get(v)
		return nil
	})
	return devs, pdata.In("device details", err)
}

// roots reads the roots of the mappings of all devices.
func (s *source) roots() (map[uint32]uint64, error) {
	roots := map[uint32]uint64{}
	err := s.leaves(s.super.MappingRoot, 8, func(k uint64, v []byte) error {
		roots[uint32(k)] = le.Uint64(v)
		return nil
	})
	return roots, pdata.In("device tree", err)
}

func (s *source) leaves(root uint64, size int, fn func(k uint64, v []byte) error) error {
	return pdata.WalkLeaves(s.bm, root, size, s.damage, func(l pdata.Leaf) error {
		for i := range l.Len() {
			if err := fn(l.Key(i), l.Value(i)); err != nil {
				return err
			}
		}
		return nil
	})
}

// mappings calls fn for the mappings of a device.
func (s *source) mappings(id uint32, root uint64, fn func(thin uint64, v thinmeta.BlockTime) error) error {
	err := s.leaves(root, 8, func(k uint64, v []byte) error {
		if s.done++; s.o.Progress != nil && s.done%(1<<16) == 0 {
			s.o.Progress(min(s.done, s.total), s.total)
		}
		return fn(k, thinmeta.BlockTimeOf(le.Uint64(v)))
	})
	return pdata.In(deviceName("", uint64(id)), err)
}

func (s *source) emit(out emitter) error {
	if err := s.open(); err != nil {
		return err
	}
	devs, err := s.details()
	if err != nil {
		return err
	}
	roots, err := s.roots()
	if err != nil {
		return err
	}
	for _, d := range devs {
		s.total += d.Mapped
	}
	if err := out.begin(s.header()); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(roots)) {
		if id > thinmeta.MaxID && len(s.o.Devices) == 0 {
			continue // a device that is being deleted is not restored
		}
		if len(s.o.Devices) > 0 && !slices.Contains(s.o.Devices, id) {
			continue
		}
		if err := s.emitDevice(out, id, roots[id], devs); err != nil {
			return err
		}
	}
	return out.end()
}

func (s *source) header() Header {
	return Header{Time: s.super.Time, TransactionID: s.super.TransactionID, Flags: s.super.Flags,
		Version: s.super.Version, DataBlockSize: s.super.DataBlockSize, DataBlocks: s.super.Data.Blocks}
}

func (s *source) emitDevice(out emitter, id uint32, root uint64, devs map[uint32]thinmeta.Details) error {
	d, known := devs[id]
	if !known {
		if s.damage == nil {
			return pdata.In("device tree", &pdata.Corrupt{Block: root, Path: []uint64{s.super.MappingRoot, root},
				Reason: fmt.Sprintf("mappings of device %d, which has no details", id)})
		}
		d = s.guess(id, root)
	}
	if err := out.device(id, d); err != nil {
		return err
	}
	if !s.o.SkipMappings {
		j := runner{emit: out.run}
		if err := s.mappings(id, root, j.add); err != nil {
			return err
		}
		if err := j.flush(); err != nil {
			return err
		}
	}
	return out.endDevice()
}

// guess makes up details that were lost. It sets the time of the last snapshot to
// now, so that a block that may be shared is never written in place.
func (s *source) guess(id uint32, root uint64) thinmeta.Details {
	d := thinmeta.Details{TransactionID: s.super.TransactionID, Snapshotted: s.super.Time}
	_ = s.mappings(id, root, func(uint64, thinmeta.BlockTime) error { d.Mapped++; return nil })
	return d
}
