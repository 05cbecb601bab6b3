package lvm

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"udm/lvm/text"
)

// reader reads typed fields of a section. It shares the first error with the readers
// of its subsections; after an error everything it returns is meaningless.
type reader struct {
	s     *text.Section
	name  string
	path  string
	entry map[string]*text.Entry
	first *error
}

func newReader(name string, s *text.Section) *reader {
	return (&reader{first: new(error)}).inside(name, s)
}

func (r *reader) inside(name string, s *text.Section) *reader {
	sub := &reader{s: s, name: name, path: strings.TrimPrefix(r.path+"/"+name, "/"), first: r.first, entry: map[string]*text.Entry{}}
	for i := range s.Entries {
		sub.entry[s.Entries[i].Name] = &s.Entries[i]
	}
	return sub
}

func (r *reader) err() error { return *r.first }

func (r *reader) fail(format string, args ...any) { r.failLine(r.path, 0, format, args...) }

// failAt reports an error in the entry with a name, which may be missing.
func (r *reader) failAt(name, format string, args ...any) {
	line := 0
	if e := r.entry[name]; e != nil {
		line = e.Line
	}
	r.failLine(r.path+"/"+name, line, format, args...)
}

func (r *reader) failLine(path string, line int, format string, args ...any) {
	if *r.first == nil {
		*r.first = &GroupError{path, line, fmt.Sprintf(format, args...)}
	}
}

func (r *reader) has(name string) bool { return r.entry[name] != nil }

// value returns the value of a required entry.
func (r *reader) value(name string) text.Value {
	if e := r.entry[name]; e != nil && e.Value != nil {
		return e.Value
	}
	r.failAt(name, "this value is missing")
	return nil
}

func (r *reader) uint(name string, most uint64) uint64 {
	v := r.value(name)
	n, ok := v.(text.Int)
	if v != nil && (!ok || n < 0 || uint64(n) > most) {
		r.failAt(name, "want a number from 0 to %d", most)
	}
	if !ok || n < 0 || uint64(n) > most {
		return 0
	}
	return uint64(n)
}

func (r *reader) uintOr(name string, most, otherwise uint64) uint64 {
	if !r.has(name) {
		return otherwise
	}
	return r.uint(name, most)
}

func (r *reader) string(name string) string {
	v := r.value(name)
	s, ok := v.(text.String)
	if v != nil && !ok {
		r.failAt(name, "want a string")
	}
	return string(s)
}

func (r *reader) stringOr(name, otherwise string) string {
	if !r.has(name) {
		return otherwise
	}
	return r.string(name)
}

func (r *reader) uuid(name string) UUID {
	s := r.string(name)
	u, ok := parseUUID(s)
	if !ok {
		r.failAt(name, "%q is not a UUID", s)
	}
	return u
}

// array returns an empty array if there is no entry.
func (r *reader) array(name string) text.Array {
	if !r.has(name) {
		return nil
	}
	a, ok := r.value(name).(text.Array)
	if !ok {
		r.failAt(name, "want an array")
	}
	return a
}

// strings returns an array of strings, or none if there is no entry. Like LVM it
// accepts a single string.
func (r *reader) strings(name string) (list []string) {
	if e := r.entry[name]; e != nil {
		if s, ok := e.Value.(text.String); ok {
			return []string{string(s)}
		}
	}
	for _, v := range r.array(name) {
		s, ok := v.(text.String)
		if !ok {
			r.failAt(name, "want strings only")
		}
		list = append(list, string(s))
	}
	return list
}

// status returns the required status, all words of which must be known.
func (r *reader) status(known []string) []string {
	r.value("status")
	list := r.strings("status")
	for _, word := range list {
		if !slices.Contains(known, word) {
			r.failAt("status", "%q is not supported", word)
		}
	}
	return list
}

// sections returns the subsections of the section with a name, or none.
func (r *reader) sections(name string, most int) iter.Seq[*reader] {
	return func(yield func(*reader) bool) {
		e := r.entry[name]
		if e == nil {
			return
		}
		if e.Section == nil || len(e.Section.Entries) > most {
			r.failAt(name, "want at most %d sections", most)
			return
		}
		all := r.inside(name, e.Section)
		for _, sub := range e.Section.Entries {
			if sub.Section == nil {
				all.failAt(sub.Name, "want a section")
				return
			}
			if !yield(all.inside(sub.Name, sub.Section)) || r.err() != nil {
				return
			}
		}
	}
}

// maxName is the maximum length of a group's or volume's name. The limit of dm
// applies to both together.
const maxName = 127

func (r *reader) checkName(name string) {
	if name == "." || name == ".." || strings.HasPrefix(name, "-") || len(name) > maxName {
		r.fail("%q is not a valid name", name)
	}
}
