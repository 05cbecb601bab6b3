package lvm

import (
	"slices"
	"strings"

	"udm/lvm/text"
)

// Segment is a part of a logical volume.
type Segment struct {
	Start, Count uint64 // in extents of the volume
	Type         string // as in the text, without flags after a "+"
	TypeFlags    []string
	Tags         []string
	Kind         Kind
	Text         *text.Section
}

// Kind is the data of a segment type: a pointer to one of the structs below.
type Kind interface {
	// volumes returns the logical volumes that it names, except those in places.
	volumes() []string
	// places returns where it lies.
	places() []Place
	// repeats reports whether a volume with such a segment may have several segments.
	repeats() bool
}

// Place is the start of a part of a segment: an extent of a physical volume, or of a
// logical one if no physical volume has that name.
type Place struct {
	Name  string
	Start uint64 // extents
}

// Places returns where a segment lies.
func (s *Segment) Places() []Place { return s.Kind.places() }

// place is a Place with its length in extents.
type place struct {
	Place
	count uint64
}

// places returns the places of a segment with their lengths.
func places(s *Segment) (ps []place) {
	n := s.Count
	if k, ok := s.Kind.(*Striped); ok {
		n /= uint64(len(k.Stripes))
	}
	for _, p := range s.Kind.places() {
		ps = append(ps, place{p, n})
	}
	return ps
}

// The kinds. Lengths are in sectors.
type (
	// Striped is also linear, with one stripe.
	Striped struct {
		StripeSize uint64
		Stripes    []Place
	}
	// Empty is "error" or "zero".
	Empty struct{}
	// Snapshot links a COW store to its origin; its LV has no device.
	Snapshot struct {
		Origin, COW string
		ChunkSize   uint64
		Merging     bool
	}
	// ThinPool is a thin pool.
	ThinPool struct {
		Metadata, Data string
		Transaction    uint64
		ChunkSize      uint64
		Discards       string // "passdown", "nopassdown" or "ignore"
		Zero           bool   // new blocks are zeroed
		Messages       []Message
	}
	// Thin is a volume of a pool.
	Thin struct {
		Pool        string
		Transaction uint64
		Device      uint32 // its id in the pool
		External    string // the external origin; "": none
		Origin      string // the thin volume that it is a snapshot of; may be gone
		Merge       string // the thin volume that it will replace
	}
	// Mirror has complete copies. With PVMOVE in its volume's status it is a pvmove
	// in progress.
	Mirror struct {
		Log        string // "": in memory
		RegionSize uint64
		Moved      uint64 // extents that a pvmove has copied
		Mirrors    []Place
	}
	// Raid is any of raid0 to raid10.
	Raid struct {
		StripeSize, RegionSize uint64
		Copies                 uint64 // raid10
		Meta, Images           []string
	}
	// CachePool is the storage of a cache.
	CachePool struct {
		Data, Metadata string
		CacheSettings
	}
	// Cache is a cached volume. Its pool is a CachePool, or a plain volume, a cachevol,
	// of which it says itself what it is used for.
	Cache struct {
		Pool, Origin   string
		Metadata, Data Part // of a cachevol
		CacheSettings       // of a cachevol
	}
	// Writecache is a volume with a cache for writes.
	Writecache struct {
		Origin, Cache string
		BlockSize     uint64             // bytes
		Settings      map[string]*uint64 // those that the text has, by LVM's names
	}
	// Integrity is a volume with checksums.
	Integrity struct {
		Origin, Metadata string // "": stored with the data
		DataSectors      uint64
		Mode             string
		BlockSize        uint64 // bytes
	}
	// VDO is a volume in a VDO pool.
	VDO struct {
		Pool   string
		Offset uint64 // extents
	}
	// VDOPool holds the data of VDO volumes.
	VDOPool struct{ Data string }
	// Other is an unsupported type, for which there is no table.
	Other struct{}
)

// CacheSettings say how a cache works.
type CacheSettings struct {
	Format       uint64 // of its metadata
	ChunkSize    uint64
	Mode, Policy string
	Policies     []Setting // of the policy
}

// Setting is a setting with a number.
type Setting struct {
	Name  string
	Value uint64
}

// Part is a part of a volume, in sectors.
type Part struct{ Start, Len uint64 }

// Message is a message that a commit left for a thin pool.
type Message struct {
	Create string // the volume to create; "": none
	Delete uint64 // the id to delete, if Create is ""
}

func (k *Striped) volumes() []string  { return nil }
func (*Empty) volumes() []string      { return nil }
func (k *Snapshot) volumes() []string { return []string{k.Origin, k.COW} }
func (k *ThinPool) volumes() []string { return []string{k.Metadata, k.Data} }
func (k *Thin) volumes() []string     { return named(k.Pool, k.External) }
func (k *Mirror) volumes() []string   { return named(k.Log) }
func (k *Raid) volumes() []string     { return slices.Concat(k.Meta, k.Images) }
func (k *CachePool) volumes() []string {
	return []string{k.Data, k.Metadata}
}
func (k *Cache) volumes() []string      { return []string{k.Pool, k.Origin} }
func (k *Writecache) volumes() []string { return []string{k.Origin, k.Cache} }
func (k *Integrity) volumes() []string  { return named(k.Origin, k.Metadata) }
func (k *VDO) volumes() []string        { return []string{k.Pool} }
func (k *VDOPool) volumes() []string    { return []string{k.Data} }
func (*Other) volumes() []string        { return nil }

// named leaves out empty names.
func named(names ...string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return n == "" })
}

func (k *Striped) places() []Place  { return k.Stripes }
func (k *Mirror) places() []Place   { return k.Mirrors }
func (*Empty) places() []Place      { return nil }
func (*Snapshot) places() []Place   { return nil }
func (*ThinPool) places() []Place   { return nil }
func (*Thin) places() []Place       { return nil }
func (*Raid) places() []Place       { return nil }
func (*CachePool) places() []Place  { return nil }
func (*Cache) places() []Place      { return nil }
func (*Writecache) places() []Place { return nil }
func (*Integrity) places() []Place  { return nil }
func (*VDO) places() []Place        { return nil }
func (*VDOPool) places() []Place    { return nil }
func (*Other) places() []Place      { return nil }

func (*Striped) repeats() bool    { return true }
func (*Empty) repeats() bool      { return true }
func (*Mirror) repeats() bool     { return true } // pvmove
func (*Snapshot) repeats() bool   { return false }
func (*ThinPool) repeats() bool   { return false }
func (*Thin) repeats() bool       { return false }
func (*Raid) repeats() bool       { return false }
func (*CachePool) repeats() bool  { return false }
func (*Cache) repeats() bool      { return false }
func (*Writecache) repeats() bool { return false }
func (*Integrity) repeats() bool  { return false }
func (*VDO) repeats() bool        { return false }
func (*VDOPool) repeats() bool    { return false }
func (*Other) repeats() bool      { return true }

func readSegment(r *reader, extent uint64) *Segment {
	s := &Segment{Text: r.s, Tags: r.strings("tags")}
	s.Start, s.Count = r.uint("start_extent", maxSector/max(extent, 1)), r.uint("extent_count", maxSector/max(extent, 1))
	if s.Start+s.Count > maxSector/max(extent, 1) {
		r.fail("it lies beyond the end of any volume")
	}
	words := strings.Split(r.string("type"), "+")
	s.Type, s.TypeFlags = words[0], words[1:]
	s.Kind = readKind(r, s)
	return s
}

// segmentTypes are the supported types.
var segmentTypes = map[string]func(*reader, *Segment) Kind{
	"striped": readStriped, "linear": readStriped,
	"error": readEmpty, "zero": readEmpty,
	"snapshot": readSnapshot, "thin-pool": readThinPool, "thin": readThin,
	"mirror": readMirror, "cache-pool": readCachePool, "cache": readCache, "writecache": readWritecache,
	"integrity": readIntegrity, "vdo": readVDO, "vdo-pool": readVDOPool,
}

// typeFlags are the supported flags after a type's "+".
var typeFlags = []string{
	"METADATA_FORMAT", "CACHE_USES_CACHEVOL", "RESHAPE", "RESHAPE_DATA_OFFSET", "RESHAPE_DELTA_DISKS_PLUS",
	"RESHAPE_DELTA_DISKS_MINUS", "REMOVE_AFTER_RESHAPE", "CROP_METADATA",
}

func readKind(r *reader, s *Segment) Kind {
	for _, f := range s.TypeFlags {
		if !slices.Contains(typeFlags, f) {
			r.failAt("type", "%q is not supported", f)
		}
	}
	if read := segmentTypes[s.Type]; read != nil {
		return read(r, s)
	}
	if strings.HasPrefix(s.Type, "raid") {
		return readRaid(r, s)
	}
	return &Other{}
}
