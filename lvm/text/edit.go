package text

import "slices"

// Clone returns a copy of a section and of everything in it.
func (s *Section) Clone() *Section {
	c := &Section{slices.Clone(s.Entries)}
	for i := range c.Entries {
		e := &c.Entries[i]
		if e.Section != nil {
			e.Section = e.Section.Clone()
		}
		if a, ok := e.Value.(Array); ok {
			e.Value = slices.Clone(a)
		}
	}
	return c
}

// Set gives the entry with a name a value. A new entry is the last.
func (s *Section) Set(name string, v Value) { s.put(Entry{Name: name, Value: v}) }

// SetSection makes a section the entry with a name. A new entry is the last.
func (s *Section) SetSection(name string, sub *Section) { s.put(Entry{Name: name, Section: sub}) }

func (s *Section) put(e Entry) {
	if old := s.Find(e.Name); old != nil {
		*old = e
		return
	}
	s.Entries = append(s.Entries, e)
}

// Delete deletes the entry with a name, if there is one.
func (s *Section) Delete(name string) {
	s.Entries = slices.DeleteFunc(s.Entries, func(e Entry) bool { return e.Name == name })
}

// Strings returns an array of strings.
func Strings(list ...string) Array {
	a := Array{}
	for _, s := range list {
		a = append(a, String(s))
	}
	return a
}
