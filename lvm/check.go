package lvm

import (
	"fmt"
	"slices"
)

// check checks the references in a group after all of it is read.
func (g *Group) check() error {
	for _, l := range g.LVs {
		for i, s := range l.Segments {
			path := fmt.Sprintf("%s/logical_volumes/%s/segment%d", g.Name, l.Name, i+1)
			if why := g.checkSegment(l, s); why != "" {
				return &GroupError{Path: path, Why: why}
			}
		}
	}
	if err := g.checkExtents(); err != nil {
		return err
	}
	return g.checkLoops()
}

func (g *Group) checkSegment(l *LV, s *Segment) string {
	for _, name := range s.Kind.volumes() {
		if g.lvs[name] == nil {
			return fmt.Sprintf("there is no logical volume %q", name)
		}
	}
	for _, p := range places(s) {
		if why := g.checkPlace(l, p); why != "" {
			return why
		}
	}
	switch k := s.Kind.(type) {
	case *Snapshot:
		return g.tieSnapshot(l, k)
	case *Thin:
		if _, ok := g.lvs[k.Pool].Segments[0].Kind.(*ThinPool); !ok {
			return fmt.Sprintf("%q is not a thin pool", k.Pool)
		}
	}
	if len(l.Segments) > 1 && !s.Kind.repeats() {
		return fmt.Sprintf("a volume with a segment of type %s must have only one segment", s.Type)
	}
	return ""
}

func (g *Group) checkPlace(l *LV, p place) string {
	if pv := g.pvs[p.Name]; pv != nil {
		if p.Start > pv.Count || p.count > pv.Count-p.Start {
			return fmt.Sprintf("%d extents at %d lie beyond the end of %s, which has %d", p.count, p.Start, p.Name, pv.Count)
		}
		pv.used = append(pv.used, extents{p.Start, p.count, l})
		return ""
	}
	lv := g.lvs[p.Name]
	if lv == nil {
		return fmt.Sprintf("there is no physical or logical volume %q", p.Name)
	}
	if n := lv.Extents(); p.Start > n || p.count > n-p.Start {
		return fmt.Sprintf("%d extents at %d lie beyond the end of %s, which has %d", p.count, p.Start, p.Name, n)
	}
	return ""
}

// tieSnapshot links the origin and the COW store of a snapshot.
func (g *Group) tieSnapshot(l *LV, s *Snapshot) string {
	origin, cow := g.lvs[s.Origin], g.lvs[s.COW]
	switch {
	case origin == cow || cow.snapshot != nil:
		return fmt.Sprintf("%q is the store of another snapshot, or its own origin", s.COW)
	case len(l.Segments) > 1 || origin.Segments[0].Kind == nil:
		return "a snapshot has one segment"
	}
	if _, ok := origin.Segments[0].Kind.(*Snapshot); ok {
		return fmt.Sprintf("%q is not a volume", s.Origin)
	}
	if _, ok := cow.Segments[0].Kind.(*Snapshot); ok {
		return fmt.Sprintf("%q is not a volume", s.COW)
	}
	cow.snapshot = l
	origin.snapshots = append(origin.snapshots, cow)
	return ""
}

// checkExtents checks that no extent belongs to two volumes.
func (g *Group) checkExtents() error {
	for _, p := range g.PVs {
		slices.SortFunc(p.used, func(a, b extents) int { return int(int64(a.start) - int64(b.start)) })
		for i := 1; i < len(p.used); i++ {
			a, b := p.used[i-1], p.used[i]
			if b.start < a.start+a.count {
				return &GroupError{Path: g.Name + "/physical_volumes/" + p.Name, Why: fmt.Sprintf("extent %d belongs to %s and to %s", b.start, a.by.Name, b.by.Name)}
			}
		}
	}
	return nil
}

// below returns the LVs that a volume consists of.
func (g *Group) below(l *LV) (names []string) {
	for _, s := range l.Segments {
		names = append(names, s.Kind.volumes()...)
		for _, p := range places(s) {
			if g.pvs[p.Name] == nil {
				names = append(names, p.Name)
			}
		}
	}
	if l.snapshot != nil {
		names = append(names, l.snapshot.Segments[0].Kind.(*Snapshot).Origin)
	}
	return names
}

// checkLoops checks that no volume contains itself.
func (g *Group) checkLoops() error {
	const under, done = 1, 2
	state := map[string]int{}
	var walk func(name string, depth int) error
	walk = func(name string, depth int) error {
		if state[name] == done {
			return nil
		}
		if state[name] == under || depth > maxStack {
			return &GroupError{Path: g.Name + "/logical_volumes/" + name, Why: "it contains itself, or too many volumes are stacked"}
		}
		state[name] = under
		for _, b := range g.below(g.lvs[name]) {
			if err := walk(b, depth+1); err != nil {
				return err
			}
		}
		state[name] = done
		return nil
	}
	for _, l := range g.LVs {
		if err := walk(l.Name, 0); err != nil {
			return err
		}
	}
	return nil
}

// maxStack is the maximum depth of stacked volumes. Thin volumes with external
// origins that are thin volumes can be stacked deepest.
const maxStack = 256
