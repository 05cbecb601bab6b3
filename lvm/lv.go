package lvm

import (
	"cmp"
	"slices"
	"strconv"

	"udm/lvm/text"
)

// LV is a logical volume as described in its group's text.
type LV struct {
	Name     string
	ID       UUID
	Status   []string // all of them supported
	Flags    []string // may be unknown
	Tags     []string
	Segments []*Segment
	Text     *text.Section

	// snapshot is the LV, without a device of its own, that makes this one a COW
	// store; snapshots are those of which this one is the origin.
	snapshot  *LV
	snapshots []*LV
}

func (l *LV) has(status string) bool { return slices.Contains(l.Status, status) }

// Writable reports whether the volume may be written to.
func (l *LV) Writable() bool { return l.has("WRITE") }

// SkipsActivation reports whether the volume is activated only on request.
func (l *LV) SkipsActivation() bool { return l.flag("ACTIVATION_SKIP") }

func (l *LV) flag(name string) bool { return slices.Contains(l.Flags, name) }

// Extents is the volume's length in extents.
func (l *LV) Extents() (n uint64) {
	for _, s := range l.Segments {
		n += s.Count
	}
	return n
}

// virtual reports whether the LV only links a COW store to its origin in the text.
func (l *LV) virtual() bool {
	_, ok := l.Segments[0].Kind.(*Snapshot)
	return ok
}

// Visible reports whether users see the volume, because it is not part of another
// one. A COW store is visible as its snapshot.
func (l *LV) Visible() bool {
	if l.snapshot != nil {
		s := l.snapshot.Segments[0].Kind.(*Snapshot)
		return !s.Merging || l.has("VISIBLE")
	}
	return l.has("VISIBLE") && !l.virtual()
}

func (g *Group) readLVs(r *reader) {
	ids := map[UUID]bool{}
	for sub := range r.sections("logical_volumes", maxLVs) {
		l := &LV{Name: sub.name, Text: sub.s}
		sub.checkName(l.Name)
		l.ID = sub.uuid("id")
		l.Status, l.Flags, l.Tags = sub.status(lvStatus), sub.strings("flags"), sub.strings("tags")
		g.readSegments(sub, l)
		if ids[l.ID] {
			sub.failAt("id", "two logical volumes have it")
		}
		ids[l.ID] = true
		g.LVs, g.lvs[l.Name] = append(g.LVs, l), l
	}
}

// readSegments reads segment1 … segmentN, which must follow one another.
func (g *Group) readSegments(r *reader, l *LV) {
	n := r.uint("segment_count", uint64(len(r.s.Entries)))
	var next uint64
	for i := uint64(1); i <= n && r.err() == nil; i++ {
		name := "segment" + strconv.FormatUint(i, 10)
		e := r.entry[name]
		if e == nil || e.Section == nil {
			r.failAt(name, "there is no such section, but segment_count is %d", n)
			return
		}
		sub := r.inside(name, e.Section)
		s := readSegment(sub, g.ExtentSize)
		if s.Start != next || s.Count == 0 {
			sub.fail("%d extents begin at %d, and the segment before ends at %d", s.Count, s.Start, next)
		}
		next = s.Start + s.Count
		l.Segments = append(l.Segments, s)
	}
	if n == 0 {
		r.failAt("segment_count", "the volume has no segments")
	}
}

// Type is the type of the volume's first segment in LVM's words, but "linear" for
// "striped" with one stripe; a COW store has the type of its snapshot.
func (l *LV) Type() string {
	if l.snapshot != nil {
		return "snapshot"
	}
	s := l.Segments[0]
	if k, ok := s.Kind.(*Striped); ok && len(k.Stripes) == 1 {
		return "linear"
	}
	return s.Type
}

// Origin is the volume of which this one is a snapshot, a cache or a clone; "": none.
func (l *LV) Origin() string {
	if l.snapshot != nil {
		return l.snapshot.Segments[0].Kind.(*Snapshot).Origin
	}
	switch k := l.Segments[0].Kind.(type) {
	case *Thin:
		return cmp.Or(k.Origin, k.External)
	case *Cache:
		return k.Origin
	case *Writecache:
		return k.Origin
	case *Integrity:
		return k.Origin
	}
	return ""
}

// Pool is the thin or VDO pool of the volume, or its cache; "": none.
func (l *LV) Pool() string {
	switch k := l.Segments[0].Kind.(type) {
	case *Thin:
		return k.Pool
	case *Cache:
		return k.Pool
	case *Writecache:
		return k.Cache
	case *VDO:
		return k.Pool
	}
	return ""
}

// Sectors is the volume's length for its users: a snapshot is as long as its origin.
func (g *Group) Sectors(l *LV) uint64 {
	if l.snapshot != nil {
		l = g.lvs[l.Origin()]
	}
	return l.Extents() * g.ExtentSize
}

// Snapshots returns the COW stores of the volume's snapshots.
func (l *LV) Snapshots() []*LV { return l.snapshots }

// Link returns the LV that makes this one a COW store in the text; nil: it is none.
func (l *LV) Link() *LV { return l.snapshot }

// Users returns the LVs that need a volume: those that it is a part, pool or origin of.
func (g *Group) Users(l *LV) (users []*LV) {
	for _, u := range g.LVs {
		if slices.Contains(g.below(u), l.Name) {
			users = append(users, u)
		}
	}
	return users
}
