package dm

import (
	"slices"
	"strconv"
	"syscall"
)

// Line is the typed form of the words after a target's name in a table. The target's
// type parses it without opening anything. Every target package has a Line for each of
// its types: a pointer to a struct with a field for each setting of the line. Devices
// are kept by the names that the line gives them.
type Line interface {
	// Target returns the name of the target's type.
	Target() string
	// String returns the words as a table has them. Parsing them gives an equal
	// Line.
	String() string
	// Devices returns the words that name devices, in the order of the line.
	Devices() []DeviceWord
}

// KeyedLine is a Line that may have a key in it, which is neither written to a file nor
// shown unless somebody asks for it.
type KeyedLine interface {
	Line
	// WithoutKey returns the words with zeroes in place of the key, and whether there
	// was one.
	WithoutKey() (words string, keyed bool)
}

// WithoutKeys returns the lines of a table with zeroes in place of keys, and whether
// there was one.
func (c *Control) WithoutKeys(specs []Spec) (out []Spec, keyed bool) {
	out = slices.Clone(specs)
	for i, s := range specs {
		l, err := c.ParseLine(s)
		if k, ok := l.(KeyedLine); ok && err == nil {
			var has bool
			out[i].Params, has = k.WithoutKey()
			keyed = keyed || has
		}
	}
	return out, keyed
}

// DeviceWord is a word of a Line that names a device.
type DeviceWord struct {
	// Name points into the Line, so that a caller can replace the name by another
	// one of the same device, which stays valid after a rename or a restart.
	Name *string
	Role Role
}

// Role says how a line uses a device. It decides which of two tables that name the
// same device has to be loaded first when a stack is built again. Every device has to
// exist before a table that names it is loaded.
type Role uint8

const (
	// Plain: the order does not matter.
	Plain Role = iota
	// Snapshotted: the line shows an earlier content of the device and must know of
	// each write to it (the origin of a snapshot).
	Snapshotted
	// Origin: the device is written through this line, which is loaded after all
	// lines that have the device as Snapshotted (a snapshot-origin or
	// snapshot-merge).
	Origin
)

// StatusLine is the typed form of a target's words in dmsetup status. Every target
// package has one for each of its types whose status is not empty.
type StatusLine interface {
	// String returns the words as the status has them.
	String() string
	// Usage tells how full each limited space of the target is.
	Usage() []Usage
}

// Usage is a limited space and how much of it is used.
type Usage struct {
	What  string // such as "data" or "metadata"; "": all space of the target
	Used  uint64 // in units
	Total uint64 // in units; 0: the target's length
	Unit  uint64 // bytes; 0: unknown, because the status does not tell it (a pool's blocks)
	// State is the word that the status has in place of figures, such as Invalid.
	// If it is not empty, there are no figures.
	State string
}

// ParseLine parses a line of a table by its type. EINVAL: the type is unknown or the
// words are wrong. A line whose type has no Parse names no devices.
func (c *Control) ParseLine(s Spec) (Line, error) {
	ty, err := c.typeNamed(s.Type)
	if err != nil {
		return nil, err
	}
	if ty.Parse == nil {
		return (*unread)(&s), nil
	}
	return ty.Parse(SplitWords(s.Params))
}

// ParseLines parses the lines of a table. The error is that of the first wrong line.
func (c *Control) ParseLines(specs []Spec) ([]Line, error) {
	lines := make([]Line, 0, len(specs))
	for _, s := range specs {
		l, err := c.ParseLine(s)
		if err != nil {
			return nil, err
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// unread is a line whose type has no Parse.
type unread Spec

func (u *unread) Target() string        { return u.Type }
func (u *unread) String() string        { return u.Params }
func (u *unread) Devices() []DeviceWord { return nil }

// NewSpec returns the table line that maps length sectors from start on by l.
func NewSpec(start, length uint64, l Line) Spec {
	return Spec{Start: start, Len: length, Type: l.Target(), Params: l.String()}
}

// Parser makes the Parse of a [Type] from a function that returns the type's own Line.
func Parser[L Line](parse func([]string) (L, error)) func([]string) (Line, error) {
	return func(words []string) (Line, error) {
		l, err := parse(words)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
}

// StatusParser makes the ParseStatus of a [Type] as Parser makes its Parse.
func StatusParser[S StatusLine](parse func(string) (S, error)) func(string) (StatusLine, error) {
	return func(status string) (StatusLine, error) {
		s, err := parse(status)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

// NotStatus returns the error for words that are not a status of the target. It is
// EINVAL.
func NotStatus(target, words string) error {
	return Errorf(syscall.EINVAL, "%q is not a status of the target %s", words, target)
}

// Place is a sector of a device: the words "DEVICE SECTOR" of many lines.
type Place struct {
	Device string
	Start  uint64 // sectors
}

// ParsePlace parses the two words. If the second is not a number, the error is EINVAL
// with the text reason.
func ParsePlace(device, start, reason string) (Place, error) {
	n, err := ParseUint(start, 1<<64-1)
	if err != nil {
		return Place{}, Because(err, reason)
	}
	return Place{device, n}, nil
}

func (p Place) String() string { return QuoteWord(p.Device) + " " + strconv.FormatUint(p.Start, 10) }

// Word returns the word that names the device.
func (p *Place) Word(r Role) DeviceWord { return DeviceWord{&p.Device, r} }
