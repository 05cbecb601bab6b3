package lvm

import "fmt"

// DiskError says what is wrong with the content of a disk, and where.
type DiskError struct {
	Disk   string
	Offset uint64 // bytes
	What   string // what should be there: "label", "metadata area", …
	Err    error
}

func (e *DiskError) Error() string {
	return fmt.Sprintf("%s: %s at byte %d: %v", e.Disk, e.What, e.Offset, e.Err)
}

func (e *DiskError) Unwrap() error { return e.Err }

// GroupError says what is wrong with a volume group, and where in its text.
type GroupError struct {
	Path string // names of sections, joined by slashes
	Line int    // in the text; 0: unknown
	Why  string
}

func (e *GroupError) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Why
	}
	return fmt.Sprintf("%s (line %d): %s", e.Path, e.Line, e.Why)
}
