package rbddiff

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Reader parses a stream. It validates all input, and its memory does not depend on the
// lengths of records.
type Reader struct {
	in      *bufio.Reader
	sum     hash.Hash
	at      uint64 // bytes read
	h       Header
	v2      bool
	left    uint64 // unread bytes of the current record's data
	seal    *Seal
	failure error // returned by all further calls; io.EOF after a complete stream
}

// Position is a position in a stream, between two records, where it can be resumed.
type Position struct {
	Header
	Offset uint64 `json:"offset"` // in the stream, in bytes
	V2     bool   `json:"v2,omitempty"`
	Sum    []byte `json:"sum"` // marshaled state of the SHA-256 of the bytes before
}

// NewReader reads the header of a stream.
func NewReader(r io.Reader) (*Reader, error) {
	d := &Reader{in: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	d.header()
	return d, d.failure
}

// Resume continues a stream at a position. r must start with the byte at that position.
func Resume(r io.Reader, p Position) (*Reader, error) {
	d := &Reader{in: bufio.NewReaderSize(r, 1<<16), sum: sha256.New(), at: p.Offset, h: p.Header, v2: p.V2}
	if err := d.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(p.Sum); err != nil {
		return nil, fmt.Errorf("the saved position in the stream is invalid; start from the beginning: %w", err)
	}
	return d, nil
}

// Header returns the header of the stream.
func (d *Reader) Header() Header { return d.h }

// Seal returns the seal of a stream that was read to its end. It is nil if the stream has
// none; then truncation and damage cannot be detected.
func (d *Reader) Seal() *Seal { return d.seal }

// Position returns the current position. Call it only after all data of the current record
// were read.
func (d *Reader) Position() Position {
	p := Position{Header: d.h, Offset: d.at, V2: d.v2}
	p.Sum, _ = d.sum.(encoding.BinaryMarshaler).MarshalBinary()
	return p
}

func (d *Reader) header() {
	banner := string(d.take(len(bannerV1)))
	if d.v2 = banner == bannerV2; !d.v2 && banner != bannerV1 {
		d.wrong(0, "it does not begin with %q", bannerV1)
	}
	for sized := false; d.failure == nil; {
		at := d.at
		switch tag := d.peekTag(); tag {
		case tagFrom:
			d.h.From = d.name()
		case tagTo:
			d.h.To = d.name()
		case tagSize:
			d.length(8, 8)
			d.h.Size, sized = d.u64(), true
		case tagData, tagZero, tagEnd:
			if !sized {
				d.wrong(at, "it has no size")
			}
			return
		default:
			d.unknown(at, tag)
		}
	}
}

// peekTag returns the next tag. It consumes the tag only if that belongs to the header.
func (d *Reader) peekTag() byte {
	p, err := d.in.Peek(1)
	if err == nil && (p[0] == tagData || p[0] == tagZero || p[0] == tagEnd) {
		return p[0]
	}
	return d.take(1)[0]
}

// length reads the length of a record in version 2, and checks that it is between lo and hi.
// In version 1 it returns lo.
func (d *Reader) length(lo, hi uint64) uint64 {
	if !d.v2 {
		return lo
	}
	at := d.at
	n := d.u64()
	if n < lo || n > hi {
		d.wrong(at, "a record has a length of %d", n)
	}
	return n
}

func (d *Reader) name() string {
	size := d.length(4, 4+maxName)
	s := d.str(maxName)
	if d.v2 && size != uint64(4+len(s)) {
		d.wrong(d.at, "the length of a snapshot's name does not match its record")
	}
	return s
}

func (d *Reader) unknown(at uint64, tag byte) {
	if !d.v2 {
		d.wrong(at, "unknown record %q", tag)
		return
	}
	for n := d.u64(); n > 0 && d.failure == nil; {
		part := min(n, 4096)
		d.take(int(part))
		n -= part
	}
}

// Next returns the next record, whose data can then be read with Read. It skips unread data
// of the previous record. io.EOF means that the stream is complete: nothing follows it, and
// if it has a seal, the checksum matches.
func (d *Reader) Next() (Record, error) {
	if _, err := io.Copy(io.Discard, d); err != nil && d.failure == nil {
		d.failure = err
	}
	for d.failure == nil {
		at := d.at
		switch tag := d.take(1)[0]; {
		case d.failure != nil:
		case tag == tagEnd:
			d.end()
		case tag == tagData || tag == tagZero:
			return d.record(at, tag == tagZero)
		case tag == tagFrom || tag == tagTo || tag == tagSize:
			d.wrong(at, "record %q comes after data", tag)
		default:
			d.unknown(at, tag)
		}
	}
	return Record{}, d.failure
}

func (d *Reader) record(at uint64, zero bool) (Record, error) {
	size := d.length(16, 1<<63)
	r := Record{Offset: d.u64(), Length: d.u64(), Zero: zero}
	switch {
	case d.failure != nil:
	case r.Length > d.h.Size || r.Offset > d.h.Size-r.Length:
		d.wrong(at, "a record of %d bytes at %d exceeds the image of %d bytes", r.Length, r.Offset, d.h.Size)
	case d.v2 && (zero && size != 16 || !zero && size-16 != r.Length):
		d.wrong(at, "a record has a length of %d", size)
	case !zero:
		d.left = r.Length
	}
	return r, d.failure
}

// Read reads the data of the current record. It returns io.EOF at their end.
func (d *Reader) Read(p []byte) (int, error) {
	switch {
	case d.failure != nil:
		return 0, d.failure
	case d.left == 0:
		return 0, io.EOF
	}
	n, err := d.in.Read(p[:min(uint64(len(p)), d.left)])
	d.took(p[:n])
	d.left -= uint64(n)
	if err != nil {
		d.failed(err)
	}
	return n, d.failure
}

// end reads the seal, if there is one, and checks that nothing follows.
func (d *Reader) end() {
	if _, err := d.in.Peek(1); err == io.EOF {
		d.failure = io.EOF
		return
	}
	at := d.at
	if mark := d.take(len(sealMark)); d.failure == nil && string(mark) != sealMark {
		d.wrong(at, "something follows its end")
	}
	s := &Seal{d.str(maxID), d.str(maxID)}
	want := d.sum.Sum(nil)
	at = d.at
	if sum := d.take(len(want)); d.failure == nil && !bytes.Equal(sum, want) {
		d.wrong(at, "its checksum does not match")
	}
	if d.failure != nil {
		return
	}
	if _, err := d.in.Peek(1); err == nil {
		d.wrong(d.at, "something follows its end")
		return
	} else if err != io.EOF {
		d.failed(err)
		return
	}
	d.seal, d.failure = s, io.EOF
}

// take reads n bytes, at most 4096. After a failure it returns zeroes.
func (d *Reader) take(n int) []byte {
	p := make([]byte, n)
	if d.failure != nil {
		return p
	}
	m, err := io.ReadFull(d.in, p)
	d.took(p[:m])
	if err != nil {
		d.failed(err)
		clear(p)
	}
	return p
}

func (d *Reader) took(p []byte) {
	d.sum.Write(p)
	d.at += uint64(len(p))
}

func (d *Reader) u64() uint64 { return le.Uint64(d.take(8)) }

func (d *Reader) str(most int) string {
	at := d.at
	n := le.Uint32(d.take(4))
	if n > uint32(most) {
		d.wrong(at, "a name has %d bytes", n)
		return ""
	}
	return string(d.take(int(n)))
}

func (d *Reader) failed(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = &Error{At: d.at, Cut: true}
	}
	if d.failure == nil {
		d.failure = err
	}
}

func (d *Reader) wrong(at uint64, format string, args ...any) {
	if d.failure == nil {
		d.failure = &Error{At: at, Reason: fmt.Sprintf(format, args...)}
	}
}
