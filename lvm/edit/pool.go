package edit

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"udm/blk"
	"udm/lvm"
	"udm/lvm/text"
	"udm/targets/thin/thinmeta"
)

// Sizes of pools in sectors.
const (
	chunkUnit   = 128     // chunks are multiples of it
	maxChunk    = 1 << 21 // 1 GiB
	minMetadata = 4096    // 2 MiB
	maxMetadata = thinmeta.MaxMetadataBlocks * 8

	comfortable = 1 << 18 // 128 MiB of metadata: where there would be more, chunks are larger
)

// Pool describes a new thin pool.
type Pool struct {
	Name            string
	Extents         uint64
	MetadataExtents uint64 // 0: as many as LVM would take
	ChunkSectors    uint64 // 0: as LVM would choose it
	Layout          Layout // of the data
	Discards        string // "": passdown
	KeepData        bool   // do not zero new chunks
	NoSpare         bool   // no spare for the repair of metadata
}

// CreatePool creates a thin pool.
func (ed *Edit) CreatePool(p Pool) error {
	return ed.try(func() error {
		if err := ed.mayCreate(p.Name); err != nil {
			return err
		}
		if err := ed.choose(&p); err != nil {
			return err
		}
		data, meta := p.Name+"_tdata", p.Name+"_tmeta"
		if _, err := ed.allocated(data, hidden, p.Extents, p.Layout); err != nil {
			return err
		}
		if _, err := ed.allocated(meta, hidden, p.MetadataExtents, Layout{}); err != nil {
			return err
		}
		ed.blank = append(ed.blank, meta)
		lv := ed.newLV(p.Name, visible, nil)
		s := segment(0, ed.group.LV(data).Extents(), "thin-pool", value("metadata", text.String(meta)), value("pool", text.String(data)),
			value("transaction_id", text.Int(0)), value("chunk_size", text.Int(p.ChunkSectors)), value("discards", text.String(p.Discards)))
		if !p.KeepData {
			s.Set("zero_new_blocks", text.Int(1))
		}
		appendSegment(lv, s)
		if err := ed.decode(); err != nil || p.NoSpare {
			return err
		}
		return ed.spare()
	})
}

// choose checks the sizes of a pool and chooses those that are not given.
func (ed *Edit) choose(p *Pool) error {
	sectors := p.Extents * ed.group.ExtentSize
	bytesPerChunk := func() uint64 { return sectors / p.ChunkSectors * 64 / blk.SectorSize }
	if p.ChunkSectors == 0 {
		for p.ChunkSectors = chunkUnit; bytesPerChunk() > comfortable && p.ChunkSectors < maxChunk; {
			p.ChunkSectors *= 2
		}
	}
	if n := p.ChunkSectors; n%chunkUnit != 0 || n == 0 || n > maxChunk {
		return fmt.Errorf("chunks of %d sectors: their size must be a multiple of 64 KiB up to 1 GiB", n)
	}
	if sectors < p.ChunkSectors {
		return fmt.Errorf("a pool of %d sectors has no room for a chunk of %d", sectors, p.ChunkSectors)
	}
	if p.MetadataExtents == 0 {
		p.MetadataExtents = ed.extents(min(max(minMetadata, bytesPerChunk()), maxMetadata))
	}
	if n := p.MetadataExtents * ed.group.ExtentSize; n < minMetadata {
		return errors.New("a pool's metadata needs at least 2 MiB")
	}
	if p.Discards == "" {
		p.Discards = "passdown"
	}
	return ed.checkMetadata(p.MetadataExtents)
}

// checkMetadata fails if metadata would be longer than a pool can use. The last extent
// may be used in part.
func (ed *Edit) checkMetadata(extents uint64) error {
	if (extents-1)*ed.group.ExtentSize >= maxMetadata {
		return errors.New("a pool cannot use more than 15.8 GiB of metadata")
	}
	return nil
}

// extents is the number of extents for sectors.
func (ed *Edit) extents(sectors uint64) uint64 {
	return (sectors + ed.group.ExtentSize - 1) / ed.group.ExtentSize
}

const spareSuffix = "_pmspare"

// spare makes the group's spare as long as the longest metadata of its pools.
func (ed *Edit) spare() error {
	var need uint64
	var spare *lvm.LV
	for _, l := range ed.group.LVs {
		if k, ok := l.Segments[0].Kind.(*lvm.ThinPool); ok {
			need = max(need, ed.group.LV(k.Metadata).Extents())
		}
		if strings.HasSuffix(l.Name, spareSuffix) {
			spare = l
		}
	}
	if spare != nil {
		if spare.Extents() >= need {
			return nil
		}
		return ed.resize(spare, need, true)
	}
	lvs := ed.section("logical_volumes")
	_, err := ed.allocated(firstFree("lvol", spareSuffix, func(n string) bool {
		return lvs.Find(n) != nil || lvs.Find(strings.TrimSuffix(n, spareSuffix)) != nil
	}), hidden, need, Layout{})
	return err
}

// growPool extends the data of a pool.
func (ed *Edit) growPool(l *lvm.LV, k *lvm.ThinPool, extents uint64) error {
	data := ed.group.LV(k.Data)
	if err := ed.resize(data, extents, true); err != nil {
		return err
	}
	l.Text.Section(segmentName(1)).Set("extent_count", text.Int(end(data.Text)))
	return nil
}

// ResizeMetadata extends the metadata of a pool.
func (ed *Edit) ResizeMetadata(name string, extents uint64) error {
	return ed.try(func() error {
		_, k, err := ed.pool(name)
		if err != nil {
			return err
		}
		if err := ed.checkMetadata(extents); err != nil {
			return err
		}
		if err := ed.resize(ed.group.LV(k.Metadata), extents, true); err != nil {
			return err
		}
		if err := ed.decode(); err != nil || !ed.hasSpare() {
			return err
		}
		return ed.spare()
	})
}

func (ed *Edit) hasSpare() bool {
	for _, l := range ed.group.LVs {
		if strings.HasSuffix(l.Name, spareSuffix) {
			return true
		}
	}
	return false
}

// pool returns a thin pool.
func (ed *Edit) pool(name string) (*lvm.LV, *lvm.ThinPool, error) {
	l, err := ed.volume(name)
	if err != nil {
		return nil, nil, err
	}
	k, ok := l.Segments[0].Kind.(*lvm.ThinPool)
	if !ok {
		return nil, nil, fmt.Errorf("%s is of type %s, not a thin pool", name, l.Type())
	}
	return l, k, nil
}

// removePool removes a pool without volumes, and the spare with the last pool.
func (ed *Edit) removePool(l *lvm.LV, k *lvm.ThinPool) error {
	if err := ed.delete(l, k.Metadata, k.Data); err != nil {
		return err
	}
	ed.tell = slices.DeleteFunc(ed.tell, func(name string) bool { return name == l.Name })
	if err := ed.decode(); err != nil {
		return err
	}
	for _, other := range ed.group.LVs {
		switch other.Segments[0].Kind.(type) {
		case *lvm.ThinPool, *lvm.CachePool:
			return nil
		}
	}
	for _, other := range ed.group.LVs {
		if strings.HasSuffix(other.Name, spareSuffix) {
			return ed.delete(other)
		}
	}
	return nil
}
