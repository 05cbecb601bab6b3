// Package rbddiff is the stream of Ceph's rbd export-diff: what an image has changed
// since a snapshot, or all that it holds. It knows bytes only.
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
// In version 2, "rbd diff v2\n", a u64 with the length of what follows is behind each
// letter but 'e', and records that are not known are passed over. Version 1 is written:
// rbd import-diff and rbd merge-diff take no other. What they need besides, the order of
// the records above, ascending offsets and no empty record, is kept by [Writer].
//
// # The seal
//
// Version 1 has no room for checksums: rbd would refuse a record that it does not
// know, or take what is in it for others. But it stops reading at 'e'. Behind that
// comes
//
//	"udm seal v1\n"
//	u32 length, id      of the content at the beginning; empty: not known
//	u32 length, id      of the content at the end
//	SHA-256             of all bytes before it
//
// Both versions are read with the seal and without. The last letter and the seal are
// written at once, and are shorter than what a pipe takes as a whole, so that a reader
// that leaves after 'e' is no error for who writes.
//
// # A stream in parts
//
// A stream may be cut between any two bytes and continued: a [Writer] that is told to
// begin at an offset makes all of the stream, but passes on only what is behind it,
// and a [Reader] begins at the [Position] behind the last whole record of another one.
// The seal is of the whole stream.
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
	return fmt.Sprintf("the stream is damaged, or no stream of rbd export-diff, at byte %d: %s", e.At, e.Reason)
}
