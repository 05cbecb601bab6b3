// Package rbddiff reads and writes the streams of Ceph's rbd export-diff: the changes
// of an image since a snapshot, or its whole content. It works on bytes only.
//
// # The stream
//
// Numbers are little-endian, offsets and lengths in bytes.
//
//	"rbd diff v1\n"
//	'f' u32 length, name     the snapshot that it begins at; none: an empty image
//	't' u32 length, name     the snapshot that it ends with
//	's' u64                  size of the image then
//	'w' u64 offset, u64 length, data
//	'z' u64 offset, u64 length: zeroes
//	'e'                      the end
//
// In version 2, "rbd diff v2\n", each letter but 'e' is followed by a u64 with the
// length of the record, and unknown records are skipped. [Writer] writes version 1, the
// only one that rbd import-diff and rbd merge-diff read. merge-diff also requires the
// order above, ascending offsets and no empty records.
//
// # The seal
//
// Version 1 has no room for checksums: its records have no length, so rbd cannot skip
// an unknown one. But rbd stops reading at 'e'. After that comes
//
//	"udm seal v1\n"
//	u32 length, id      of the content at the beginning; empty: not known
//	u32 length, id      of the content at the end
//	SHA-256             of all bytes before it
//
// Both versions are read with or without a seal. The last letter and the seal are
// written together, in fewer bytes than a pipe takes atomically, so that the writer
// sees no error if the reader exits after 'e'.
//
// # A stream in parts
//
// A stream can be cut anywhere and continued. A [Writer] with an offset generates the
// whole stream but passes on only the bytes from there on; a [Reader] starts at a
// [Position], which is always between two records. The seal covers the whole stream.
package rbddiff

import "fmt"

const (
	bannerV1 = "rbd diff v1\n"
	bannerV2 = "rbd diff v2\n"
	sealMark = "udm seal v1\n"
)

const (
	tagFrom = 'f'
	tagTo   = 't'
	tagSize = 's'
	tagData = 'w'
	tagZero = 'z'
	tagEnd  = 'e'
)

// Bounds of names, as rbd has them, and of ids.
const maxName, maxID = 4096, 256

// Header is what a stream is about.
type Header struct {
	From string `json:"from,omitempty"` // "": an empty image
	To   string `json:"to,omitempty"`
	Size uint64 `json:"size"` // bytes
}

// Seal tells which contents a stream begins and ends with, whatever they are called.
type Seal struct{ From, To string }

// Record is a run of bytes that is told of.
type Record struct {
	Offset, Length uint64
	Zero           bool // else its data follow
}

// Error is what is wrong with a stream.
type Error struct {
	At     uint64 // byte of the stream
	Cut    bool   // it ends there; all before is right as far as anybody can tell
	Reason string
}

func (e *Error) Error() string {
	if e.Cut {
		return fmt.Sprintf("the stream is cut off after %d bytes", e.At)
	}
	return fmt.Sprintf("the stream is damaged or not from udm send or rbd export-diff, at byte %d: %s", e.At, e.Reason)
}
