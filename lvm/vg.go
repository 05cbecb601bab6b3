package lvm

import (
	"slices"

	"udm/lvm/text"
)

// Group is a volume group as described in its text. Text has everything, including
// what the other fields leave out.
type Group struct {
	Name       string
	ID         UUID
	Seqno      uint64
	Status     []string // all of them supported
	Flags      []string // may be unknown
	Tags       []string
	SystemID   string
	LockType   string
	Allocation string // "": normal
	ExtentSize uint64 // sectors
	MaxLV      uint64 // 0: no limit
	MaxPV      uint64
	Copies     uint64 // minimum number of copies of the metadata; 0: in all areas

	PVs []*PV
	LVs []*LV

	Text *text.Section // the whole text, including header fields

	lvs map[string]*LV
	pvs map[string]*PV
}

// PV is a physical volume as described in its group's text.
type PV struct {
	Name   string // in the text: pv0, …
	ID     UUID
	Device string // its last device name; only a hint
	Status []string
	Flags  []string
	Tags   []string
	Size   uint64 // sectors
	Start  uint64 // sector of the first extent
	Count  uint64 // extents
	Text   *text.Section

	used []extents // extents used by segments; checked after all are read
}

// extents are count extents of a PV from start on.
type extents struct {
	start, count uint64
	by           *LV
}

// LV returns the logical volume with a name, or nil.
func (g *Group) LV(name string) *LV { return g.lvs[name] }

// PV returns the physical volume with a name in the text, or nil.
func (g *Group) PV(name string) *PV { return g.pvs[name] }

// Missing reports whether the group no longer uses the disk, even if it is there.
func (p *PV) Missing() bool {
	return slices.Contains(p.Flags, "MISSING") || slices.Contains(p.Status, "MISSING")
}

// Exported reports whether the group must be imported before use.
func (g *Group) Exported() bool { return slices.Contains(g.Status, "EXPORTED") }

// Status flags; unknown ones are refused.
var (
	vgStatus = []string{"RESIZEABLE", "READ", "WRITE", "EXPORTED", "CLUSTERED", "SHARED", "PVMOVE"}
	pvStatus = []string{"ALLOCATABLE", "EXPORTED", "MISSING"}
	lvStatus = []string{"READ", "WRITE", "VISIBLE", "FIXED_MINOR", "PVMOVE", "LOCKED", "NOTSYNCED", "REBUILD", "WRITEMOSTLY"}
)

const (
	formatName = "lvm2"
	maxPVs     = 1 << 16
	maxLVs     = 1 << 20
	maxSector  = 1<<54 - 1 // so that bytes fit into 63 bits
)

// header identifies a group's text without decoding the rest.
type header struct {
	name  string
	id    UUID
	seqno uint64
}

// groupSection returns the entry of the group in a text: its first section.
func groupSection(s *text.Section) (*text.Entry, error) {
	for i := range s.Entries {
		if e := &s.Entries[i]; e.Section != nil {
			return e, nil
		}
	}
	return nil, &GroupError{Path: "/", Why: "there is no volume group in the text"}
}

func readGroupHeader(s *text.Section) (h header, err error) {
	e, err := groupSection(s)
	if err != nil {
		return h, err
	}
	r := newReader(e.Name, e.Section)
	h = header{e.Name, r.uuid("id"), r.uint("seqno", 1<<32-1)}
	return h, r.err()
}

// ParseGroup decodes a whole text. An error is a *GroupError.
func ParseGroup(s *text.Section) (*Group, error) {
	e, err := groupSection(s)
	if err != nil {
		return nil, err
	}
	g := &Group{Name: e.Name, Text: s, lvs: map[string]*LV{}, pvs: map[string]*PV{}}
	r := newReader(e.Name, e.Section)
	r.checkName(g.Name)
	g.readFields(r)
	g.readPVs(r)
	g.readLVs(r)
	if err := r.err(); err != nil {
		return nil, err
	}
	if err := g.check(); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Group) readFields(r *reader) {
	g.ID, g.Seqno = r.uuid("id"), r.uint("seqno", 1<<32-1)
	if f := r.stringOr("format", formatName); f != formatName {
		r.failAt("format", "volume groups of format %q are not supported, only %q", f, formatName)
	}
	if v := g.Text.Value("version"); v != nil && v != text.Int(1) {
		r.failAt("version", "only version 1 of the text is supported")
	}
	g.Status, g.Flags, g.Tags = r.status(vgStatus), r.strings("flags"), r.strings("tags")
	g.SystemID, g.LockType = r.stringOr("system_id", ""), r.stringOr("lock_type", "")
	g.Allocation = r.stringOr("allocation_policy", "")
	g.ExtentSize = r.uint("extent_size", 1<<32-1)
	if g.ExtentSize == 0 {
		r.failAt("extent_size", "the extent size is zero")
	}
	g.MaxLV, g.MaxPV = r.uintOr("max_lv", 1<<32-1, 0), r.uintOr("max_pv", 1<<32-1, 0)
	g.Copies = r.uintOr("metadata_copies", 1<<32-1, 0)
}

func (g *Group) readPVs(r *reader) {
	ids := map[UUID]bool{}
	for sub := range r.sections("physical_volumes", maxPVs) {
		p := &PV{Name: sub.name, Text: sub.s}
		p.ID, p.Device = sub.uuid("id"), sub.stringOr("device", "")
		p.Status, p.Flags, p.Tags = sub.status(pvStatus), sub.strings("flags"), sub.strings("tags")
		p.Size, p.Start = sub.uintOr("dev_size", maxSector, 0), sub.uint("pe_start", maxSector)
		p.Count = sub.uint("pe_count", maxSector/max(g.ExtentSize, 1))
		if p.Start+p.Count*g.ExtentSize > maxSector {
			sub.fail("its extents lie beyond the end of any disk")
		}
		if ids[p.ID] {
			sub.failAt("id", "two physical volumes have it")
		}
		ids[p.ID] = true
		g.PVs, g.pvs[p.Name] = append(g.PVs, p), p
	}
}

// Extents are consecutive extents of a physical volume.
type Extents struct{ Start, Count uint64 }

// Free returns the extents of a physical volume that no volume uses, in order.
func (p *PV) Free() (free []Extents) {
	var next uint64
	for _, u := range p.used {
		if u.start > next {
			free = append(free, Extents{next, u.start - next})
		}
		next = u.start + u.count
	}
	if next < p.Count {
		free = append(free, Extents{next, p.Count - next})
	}
	return free
}
