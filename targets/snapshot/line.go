package snapshot

import (
	"fmt"
	"math"
	"strings"
	"syscall"

	"udm/dm"
)

// Line is the parameters of a snapshot line in a table.
type Line struct {
	Origin, COW    string // devices
	Persistent     bool   // "P"; else "N"
	Overflow       bool   // "PO": a full store does not invalidate the snapshot
	Chunk          uint64 // sectors; 0: as in the store
	ZeroesCOW      bool   // discard_zeroes_cow
	PassdownOrigin bool   // discard_passdown_origin
}

// MergeLine is the parameters of a snapshot-merge line in a table.
type MergeLine struct{ Line }

// OriginLine is the parameters of a snapshot-origin line in a table.
type OriginLine struct{ Origin string }

// ParseLine parses the parameters. If only those of the store are wrong it returns
// the rest of the line beside the error.
func ParseLine(words []string) (*Line, error) {
	if len(words) < 4 {
		return nil, dm.Errorf(syscall.EINVAL, "requires 4 or more arguments")
	}
	l := &Line{Origin: words[0], COW: words[1]}
	if err := l.parseFeatures(dm.NewArgs(words[4:])); err != nil {
		return nil, err
	}
	return l, storeError(l.parseStore(words[2], words[3]))
}

// ParseMergeLine parses the parameters of a snapshot-merge, like ParseLine.
func ParseMergeLine(words []string) (*MergeLine, error) {
	l, err := ParseLine(words)
	if l == nil {
		return nil, err
	}
	return &MergeLine{*l}, err
}

// ParseOriginLine parses the parameters.
func ParseOriginLine(words []string) (*OriginLine, error) {
	if len(words) != 1 {
		return nil, dm.Errorf(syscall.EINVAL, "origin: incorrect number of arguments")
	}
	return &OriginLine{words[0]}, nil
}

func (l *Line) parseFeatures(a *dm.Args) error {
	if a.Len() == 0 {
		return nil
	}
	n, err := a.Group(0, 2, "Invalid number of feature arguments")
	if err != nil {
		return err
	}
	for range n {
		switch strings.ToLower(a.Next()) {
		case "discard_zeroes_cow":
			l.ZeroesCOW = true
		case "discard_passdown_origin":
			l.PassdownOrigin = true
		default:
			return dm.Errorf(syscall.EINVAL, "Unrecognised feature requested")
		}
	}
	if l.PassdownOrigin && !l.ZeroesCOW {
		return dm.Errorf(syscall.EINVAL, "discard_passdown_origin feature depends on discard_zeroes_cow")
	}
	return nil
}

// parseStore parses the store's type with its options, and the chunk size.
func (l *Line) parseStore(kind, chunk string) error {
	switch k := strings.ToUpper(kind); {
	case strings.HasPrefix(k, "PO"):
		l.Persistent, l.Overflow = true, true
	case k == "P":
		l.Persistent = true
	case strings.HasPrefix(k, "P"):
		return dm.Errorf(syscall.EINVAL, "Unsupported persistent store option: %s", kind[1:])
	case !strings.HasPrefix(k, "N"):
		return dm.Errorf(syscall.EINVAL, "Exception store type is not P or N")
	}
	n, err := dm.ParseUint(chunk, math.MaxUint32)
	if err != nil {
		return dm.Errorf(syscall.EINVAL, "Invalid chunk size")
	}
	l.Chunk = n
	if n == 0 {
		return nil
	}
	return checkChunkSize(n)
}

// storeError wraps a store error in the kernel's words.
func storeError(err error) error {
	if err == nil {
		return nil
	}
	return dm.Errorf(syscall.EINVAL, "Couldn't create exception store (%v)", err)
}

func (l *Line) Target() string       { return "snapshot" }
func (l *MergeLine) Target() string  { return "snapshot-merge" }
func (l *OriginLine) Target() string { return "snapshot-origin" }

func (l *Line) String() string {
	text := fmt.Sprintf("%s %s %s %d", dm.QuoteWord(l.Origin), dm.QuoteWord(l.COW), l.store(), l.Chunk)
	switch {
	case l.PassdownOrigin:
		text += " 2 discard_zeroes_cow discard_passdown_origin"
	case l.ZeroesCOW:
		text += " 1 discard_zeroes_cow"
	}
	return text
}

func (l *Line) store() string {
	switch {
	case l.Persistent && l.Overflow:
		return "PO"
	case l.Persistent:
		return "P"
	}
	return "N"
}

func (l *OriginLine) String() string { return dm.QuoteWord(l.Origin) }

func (l *Line) Devices() []dm.DeviceWord { return l.devices(dm.Snapshotted) }

// Devices has the role Origin for its origin, because the origin is written through
// this line.
func (l *MergeLine) Devices() []dm.DeviceWord { return l.devices(dm.Origin) }

func (l *Line) devices(origin dm.Role) []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Origin, Role: origin}, {Name: &l.COW}}
}

func (l *OriginLine) Devices() []dm.DeviceWord {
	return []dm.DeviceWord{{Name: &l.Origin, Role: dm.Origin}}
}
