// Package rbddiff reads and writes streams of Ceph's rbd export-diff: the changes of an
// image since a snapshot, or its whole contents. It does not access devices.
//
// # The stream
//
// Numbers are little-endian, offsets and lengths in bytes.
//
//	"rbd diff v1\n"
//	'f' u32 length, name     the base snapshot; absent if the base is an empty image
//	't' u32 length, name     the snapshot whose contents result
//	's' u64                  size of the resulting image
//	'w' u64 offset, u64 length, data
//	'z' u64 offset, u64 length: zeroes
//	'e'                      end of the stream
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
//	u32 length, id      of the base contents; empty if unknown
//	u32 length, id      of the resulting contents
//	SHA-256             of all preceding bytes
//
// [Reader] reads both versions with or without a seal. [Writer] writes 'e' and the seal in
// one write, which is small enough to be atomic on a pipe, so that it gets no error if the
// reader exits after 'e'.
//
// # Resuming
//
// A stream can be interrupted anywhere and resumed. A [Writer] with an offset generates the
// whole stream but only outputs the bytes from there on. A [Reader] starts at a [Position],
// which is always between two records. The seal covers the whole stream.
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

// Limits of the lengths of names, the same as rbd's, and of ids, in bytes.
const maxName, maxID = 4096, 256

// Header holds the metadata of a stream.
type Header struct {
	From string `json:"from,omitempty"` // base snapshot, "" for an empty image
	To   string `json:"to,omitempty"`   // resulting snapshot
	Size uint64 `json:"size"`           // of the resulting image in bytes
}

// Seal identifies the base and the resulting contents, independently of their names.
type Seal struct{ From, To string }

// Record is a changed range of the image, in bytes.
type Record struct {
	Offset, Length uint64
	Zero           bool // the range is zero; otherwise its data follow
}

// Error describes an invalid stream.
type Error struct {
	At     uint64 // offset in the stream in bytes
	Cut    bool   // the stream ends there, without any error before
	Reason string
}

func (e *Error) Error() string {
	if e.Cut {
		return fmt.Sprintf("the stream is cut off after %d bytes", e.At)
	}
	return fmt.Sprintf("the stream is damaged or not from udm send or rbd export-diff, at byte %d: %s", e.At, e.Reason)
}
