// Package text reads and prints LVM2's configuration text, the form of a volume
// group's metadata on disk and in backup files.
//
//	name { … }         a section
//	key = value        an integer, a decimal number, a "string", or an [array] of them
//	# …                a comment, to the end of the line
//
// Everything is kept in order except comments and blank lines, and printed as LVM
// prints it on disk, without indentation. A name occurs once in a section. Paths of
// configuration files (a/b = v) are refused, and so are numbers that LVM would read
// as octal or hexadecimal.
package text

import (
	"fmt"
	"strconv"
	"strings"
)

// Section is the entries between braces, or of a whole text.
type Section struct {
	Entries []Entry
}

// Entry is a name with a value or a section: exactly one of the two is set.
type Entry struct {
	Name    string
	Value   Value
	Section *Section
	Line    int // line number from 1; 0: not from a text
}

// Value is one of Int, Float, String and Array.
type Value interface{ print(b *strings.Builder) }

type (
	// Int is an integer.
	Int int64
	// Float is a decimal number as it was written.
	Float string
	// String is any text without NUL.
	String string
	// Array must not contain arrays.
	Array []Value
)

// Find returns the entry with a name, or nil.
func (s *Section) Find(name string) *Entry {
	for i := range s.Entries {
		if s.Entries[i].Name == name {
			return &s.Entries[i]
		}
	}
	return nil
}

// Value returns the value of the entry with a name, or nil.
func (s *Section) Value(name string) Value {
	if e := s.Find(name); e != nil {
		return e.Value
	}
	return nil
}

// Section returns the section with a name, or nil.
func (s *Section) Section(name string) *Section {
	if e := s.Find(name); e != nil {
		return e.Section
	}
	return nil
}

// Error says what is wrong with a text, and where.
type Error struct {
	Line int // from 1
	Why  string
}

func (e *Error) Error() string { return fmt.Sprintf("line %d: %s", e.Line, e.Why) }

// String prints the section's entries. Parsing the result gives an equal section.
func (s *Section) String() string {
	var b strings.Builder
	s.print(&b)
	return b.String()
}

func (s *Section) print(b *strings.Builder) {
	for i, e := range s.Entries {
		if e.Section == nil {
			b.WriteString(e.Name + " = ")
			e.Value.print(b)
			b.WriteByte('\n')
			continue
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(e.Name + " {\n")
		e.Section.print(b)
		b.WriteString("}\n")
	}
}

func (v Int) print(b *strings.Builder)   { b.WriteString(strconv.FormatInt(int64(v), 10)) }
func (v Float) print(b *strings.Builder) { b.WriteString(string(v)) }

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func (v String) print(b *strings.Builder) {
	b.WriteString(`"` + escape.Replace(string(v)) + `"`)
}

func (v Array) print(b *strings.Builder) {
	b.WriteByte('[')
	for i, item := range v {
		if i > 0 {
			b.WriteString(", ")
		}
		item.print(b)
	}
	b.WriteByte(']')
}
