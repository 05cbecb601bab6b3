package volume

import (
	"slices"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/snapshot"
	"udm/targets/thin"
)

// compareInPool compares a volume with another one of its pool. If c is nil, all mapped
// blocks count as changed.
func (m *Manager) compareInPool(h *history, c *object) error {
	l := h.o.volume()
	if c != nil && (c.kind != Volume || c.volume().Pool != l.Pool) {
		return refuse(syscall.EINVAL, "%s is not a volume of %s, so %s cannot be compared with it", c.name, mapped(l.Pool), h.o.name)
	}
	p, err := m.kindOf(mapped(l.Pool), Pool)
	if err != nil {
		return err
	}
	var since *uint32
	if c != nil {
		since = &c.volume().ID
	}
	h.block = p.pool().BlockSectors
	h.next = func(sector, sectors uint64) (s span, err error) {
		part, err := thin.ChangesSince(p.dev, since, l.ID, sector)
		s.end, s.own = sector+sectors, part.Own
		if part.More {
			s.end = min(s.end, part.Next)
		}
		for _, e := range part.Extents {
			// A block that is not mapped any more reads from the external origin if there
			// is one, otherwise as zeroes.
			s.add(e, sector, !e.Data && l.Origin == "")
		}
		return s, err
	}
	return nil
}

// add adds the part of an extent that lies between begin and the end of the span.
func (s *span) add(e blk.Extent, begin uint64, zero bool) {
	at, end := max(e.Sector, begin), min(e.Sector+e.Sectors, s.end)
	if at < end {
		s.changes = append(s.changes, Change{at, end - at, zero})
	}
}

// layer is one of the layers of an object: a device with a store, or at the bottom the base
// below the stores.
type layer struct {
	word  string     // the name in tables
	store *dm.Device // the device, if its live table is a snapshot; nil for the base
}

// layers returns the layers of an object, top to bottom.
func (m *Manager) layers(o *object) (ls []layer) {
	word := dev(o.name)
	if o.real != "" {
		word = dev(o.real)
	}
	for {
		d, l := m.storeOf(word)
		ls = append(ls, layer{word, d})
		if d == nil {
			return ls
		}
		word = m.lasting(l.Origin)
	}
}

// storeOf returns the device with the given name in tables, and the line of its live table,
// if that is a snapshot.
func (m *Manager) storeOf(word string) (*dm.Device, *snapshot.Line) {
	d, err := m.control.Name(mapped(word))
	if err != nil {
		return nil, nil
	}
	specs, _, _ := d.Loaded(false)
	if len(specs) != 1 || specs[0].Type != "snapshot" {
		return nil, nil
	}
	l, err := m.control.ParseLine(specs[0])
	if err != nil {
		return nil, nil
	}
	return d, l.(*snapshot.Line)
}

// sinceBase compares an object with its base, the first layer below the top that does not
// belong to another object. It reports whether there is one.
func (m *Manager) sinceBase(h *history) bool {
	ls := m.layers(h.o)
	for i := 1; i < len(ls); i++ {
		if !isReal(m, ls[i].word) {
			h.inStores(ls[:i])
			return true
		}
	}
	return false
}

// isReal reports whether a layer is the hidden device below another object's front.
func isReal(m *Manager, word string) bool {
	front := m.front(mapped(word))
	return front != "" && front+realSuffix == mapped(word)
}

// compareStores compares objects with a common layer: they may differ where one of the stores
// above that layer has an exception.
func (m *Manager) compareStores(h *history, c *object) error {
	a, b := m.layers(h.o), m.layers(c)
	for i := range a {
		j := slices.IndexFunc(b, func(l layer) bool { return l.word == a[i].word })
		if j >= 0 {
			h.inStores(slices.Concat(a[:i], b[:j]))
			return nil
		}
	}
	return refuse(syscall.EINVAL, "%s and %s have no common base, so they cannot be compared", h.o.name, c.name)
}

// inStores makes the exceptions of the given stores the changes.
func (h *history) inStores(ls []layer) {
	h.block = chunk
	h.next = func(sector, sectors uint64) (s span, err error) {
		s.end = sector + sectors
		list := []blk.Extent{{Sector: sector, Sectors: sectors}}
		for _, l := range ls {
			own, err := snapshot.Exceptions(l.store, sector, blk.SumExtents(list))
			if err != nil {
				return s, err
			}
			list = blk.EitherExtents(list, own)
		}
		s.end = sector + blk.SumExtents(list)
		for _, e := range list {
			if e.Data {
				s.add(e, sector, false)
			}
		}
		return s, nil
	}
}

// Checkpoints returns the names since which an object's changes can be listed: volumes and
// snapshots that are related to it, and [BaseCheckpoint] if it has a base; for an era device
// its newest eras.
func (m *Manager) Checkpoints(name string) ([]string, error) {
	o, err := m.object(name)
	if err != nil {
		return nil, err
	}
	if o.kind == Pool || o.kind == Merging {
		return nil, unknownChanges(o)
	}
	if o.eraLine() != nil && o.real == "" {
		return m.eras(o)
	}
	names := make([]string, 0)
	for _, d := range m.control.List() {
		c, err := m.object(d.Name())
		if err == nil && c.name != name && m.whole(c) == nil && m.comparable(o, c) {
			names = append(names, c.name)
		}
	}
	if !slices.Contains(names, BaseCheckpoint) {
		if o.kind == Volume && o.volume().Origin != "" || o.kind != Volume && m.sinceBase(&history{o: o}) {
			names = append(names, BaseCheckpoint)
		}
	}
	return names, nil
}

// comparable reports whether two objects are related, so that a comparison is useful.
func (m *Manager) comparable(o, c *object) bool {
	switch {
	case o.kind == Volume || c.kind == Volume:
		return o.kind == c.kind && o.volume().Pool == c.volume().Pool && (related(o, c) || related(c, o))
	case o.kind == Merging || c.kind == Merging || o.kind == Pool || c.kind == Pool:
		return false
	}
	a, b := m.layers(o), m.layers(c)
	i := slices.IndexFunc(a, func(l layer) bool { return slices.ContainsFunc(b, func(k layer) bool { return k.word == l.word }) })
	return i >= 0 && isReal(m, a[i].word)
}
