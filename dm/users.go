package dm

import (
	"slices"
	"strings"
	"sync"
)

// users finds devices by what their tables have open, those that are being loaded or are
// inactive included: whoever asks about one device of thousands need not look at all
// tables. It is kept by adopt and drop.
type users struct {
	mu sync.Mutex
	of map[use][]*Device // guarded by mu; a device is there once for each open
}

// use is a lower device by its number, one that is open for writing, or one by the name
// in the table.
type use struct {
	num   Number
	write bool
	name  string
}

func (l *lower) uses() []use {
	us := []use{{num: l.num}, {name: l.name}}
	if l.write {
		us = append(us, use{num: l.num, write: true})
	}
	return us
}

func (s *users) add(l *lower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil {
		s.of = make(map[use][]*Device)
	}
	for _, u := range l.uses() {
		s.of[u] = append(s.of[u], l.user)
	}
}

func (s *users) remove(l *lower) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range l.uses() {
		ds := s.of[u]
		last := len(ds) - 1
		i := slices.Index(ds, l.user)
		ds[i], ds[last] = ds[last], nil
		if s.of[u] = ds[:last]; last == 0 {
			delete(s.of, u)
		}
	}
}

// find returns the devices of some uses, each once.
func (s *users) find(us ...use) []*Device {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := make(map[*Device]bool)
	var ds []*Device
	for _, u := range us {
		for _, d := range s.of[u] {
			if !found[d] {
				found[d] = true
				ds = append(ds, d)
			}
		}
	}
	return ds
}

// Users returns the devices whose live tables use what a table means by a name now, in
// the order of their names. Of a disk, those are among them that have opened another one
// by this name.
func (c *Control) Users(name string) []*Device {
	if d := c.Mapped(name); d != nil {
		return live(c.users.find(use{num: d.number}), func(l *Dev) bool { return l.Number == d.number })
	}
	us := []use{{name: name}}
	n, there := c.numberOf(name)
	if there {
		us = append(us, use{num: n})
	}
	return live(c.users.find(us...), func(l *Dev) bool { return there && l.Number == n || l.lower.name == name })
}

// Writers returns those of the Users that may write to it.
func (c *Control) Writers(name string) []*Device {
	n, there := c.numberOf(name)
	if !there {
		return nil
	}
	return live(c.users.find(use{num: n, write: true}), func(d *Dev) bool { return d.Number == n && d.Write })
}

// Written reports whether a table has a device open for writing, whether it is live or not.
func (c *Control) Written(n Number) bool { return len(c.users.find(use{num: n, write: true})) > 0 }

// live returns the devices whose live tables have a lower device with a property.
func live(ds []*Device, has func(*Dev) bool) []*Device {
	type named struct {
		name string
		*Device
	}
	var found []named
	for _, d := range ds {
		if t := d.table(); t != nil && t.has(has) {
			found = append(found, named{d.Name(), d})
		}
	}
	slices.SortFunc(found, func(a, b named) int { return strings.Compare(a.name, b.name) })
	ds = ds[:0]
	for _, f := range found {
		ds = append(ds, f.Device)
	}
	return ds
}

func (t *Table) has(property func(*Dev) bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.opened, property)
}

// numberOf returns the number of what a table would open by a name, if it is there.
func (c *Control) numberOf(name string) (Number, bool) {
	if d := c.Mapped(name); d != nil {
		return d.number, true
	}
	if c.opener == nil {
		return Number{}, false
	}
	dev, n, err := c.opener.Open(name, false)
	if err != nil {
		return Number{}, false
	}
	_ = dev.Close()
	return n, true
}
