package dm

import (
	"strconv"
	"syscall"
)

// Line is the words behind a target's name in a table, understood by the
// target's type without opening anything. Every target package has one for each
// of its types, a pointer to a struct with a field for each thing that the line
// says; devices are kept by the names that the line gives them.
type Line interface {
	// Target is the name of the target's type.
	Target() string
	// String prints the words as a table has them. Parsing them again gives an
	// equal Line.
	String() string
	// Devices are the words that name devices, in the order of the line.
	Devices() []DeviceWord
}

// DeviceWord is a word of a Line that names a device.
type DeviceWord struct {
	// Name points into the Line: a caller may put another name there, one that
	// still means the same device after a rename or a restart.
	Name *string
	Role Role
}

// Role says what a line does with a device, and so which of two tables that
// name the same device has to be loaded first when a stack is built again.
// Every device has to be there before a table that names it.
type Role uint8

const (
	// Plain: the order does not matter.
	Plain Role = iota
	// Snapshotted: the line shows the device as it was, and has to be told of
	// each write to it (the origin of a snapshot).
	Snapshotted
	// Origin: the line is the way to write to the device, and is loaded after
	// all lines that have it as Snapshotted (a snapshot-origin or
	// snapshot-merge).
	Origin
)

// StatusLine is what a target says of itself in dmsetup status, understood.
// Every target package that says anything has one for each of its types.
type StatusLine interface {
	// String prints the words as the target's status has them.
	String() string
	// Usage tells how full the target's limited space is; empty if it has none.
	Usage() []Usage
}

// Usage is a limited space and how much of it is taken.
type Usage struct {
	What  string // such as "data" or "metadata"; "": all that the target has
	Used  uint64 // in units
	Total uint64 // in units; 0: as much as the target is long
	Unit  uint64 // bytes; 0: the status does not tell (a pool's blocks)
	// State is the target's word in place of the figures, such as Invalid: then
	// there are none.
	State string
}

// ParseLine understands a line of a table by its type. A line whose type has no
// Parse names no devices.
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

// ParseLines understands a table, line by line. The error is that of the first
// line that is wrong.
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

// NewSpec is a line of a table.
func NewSpec(start, length uint64, l Line) Spec {
	return Spec{Start: start, Len: length, Type: l.Target(), Params: l.String()}
}

// Parser makes a [Type]'s Parse of a function that returns its own type of line.
func Parser[L Line](parse func([]string) (L, error)) func([]string) (Line, error) {
	return func(words []string) (Line, error) {
		l, err := parse(words)
		if err != nil {
			return nil, err
		}
		return l, nil
	}
}

// StatusParser makes a [Type]'s ParseStatus as Parser makes its Parse.
func StatusParser[S StatusLine](parse func(string) (S, error)) func(string) (StatusLine, error) {
	return func(status string) (StatusLine, error) {
		s, err := parse(status)
		if err != nil {
			return nil, err
		}
		return s, nil
	}
}

// NotStatus is the error for words that no status of a target consists of.
func NotStatus(target, words string) error {
	return Errorf(syscall.EINVAL, "%q is not a status of the target %s", words, target)
}

// Place is a sector of a device, the words "DEVICE SECTOR" that many lines are
// made of.
type Place struct {
	Device string
	Start  uint64 // sectors
}

// ParsePlace reads the two words. What is wrong with the second is an EINVAL
// that says reason.
func ParsePlace(device, start, reason string) (Place, error) {
	n, err := ParseUint(start, 1<<64-1)
	if err != nil {
		return Place{}, Because(err, reason)
	}
	return Place{device, n}, nil
}

func (p Place) String() string { return QuoteWord(p.Device) + " " + strconv.FormatUint(p.Start, 10) }

// Word is the first of the two.
func (p *Place) Word(r Role) DeviceWord { return DeviceWord{&p.Device, r} }
