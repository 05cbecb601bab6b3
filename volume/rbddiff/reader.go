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

// Reader takes a stream apart. It trusts nothing that it reads, and needs little
// memory however long the records are.
type Reader struct {
	in      *bufio.Reader
	sum     hash.Hash
	at      uint64 // bytes that were read
	h       Header
	v2      bool
	left    uint64 // of the data of the last record
	seal    *Seal
	failure error
}

// Position is where a stream can be gone on with: behind a whole record.
type Position struct {
	Header
	Offset uint64 `json:"offset"` // bytes of the stream
	V2     bool   `json:"v2,omitempty"`
	Sum    []byte `json:"sum"` // of the bytes before, as package sha256 keeps it
}

// NewReader reads the header of a stream.
func NewReader(r io.Reader) (*Reader, error) {
	d := &Reader{in: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	d.header()
	return d, d.failure
}

// Resume goes on with a stream, of which r has what is behind a position.
func Resume(r io.Reader, p Position) (*Reader, error) {
	d := &Reader{in: bufio.NewReaderSize(r, 1<<16), sum: sha256.New(), at: p.Offset, h: p.Header, v2: p.V2}
	if err := d.sum.(encoding.BinaryUnmarshaler).UnmarshalBinary(p.Sum); err != nil {
		return nil, fmt.Errorf("the saved position in the stream is invalid; start from the beginning: %w", err)
	}
	return d, nil
}

// Header is what the stream is about.
func (d *Reader) Header() Header { return d.h }

// Seal is the seal of a stream that has come to its end; nil: it has none, so that
// nobody can tell whether it is as it was written.
func (d *Reader) Seal() *Seal { return d.seal }

// Position is where to go on later, once the last record was read.
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
				d.wrong(at, "it does not tell a size")
			}
			return
		default:
			d.unknown(at, tag)
		}
	}
}

// peekTag takes a tag, unless it is that of what comes behind the header.
func (d *Reader) peekTag() byte {
	p, err := d.in.Peek(1)
	if err == nil && (p[0] == tagData || p[0] == tagZero || p[0] == tagEnd) {
		return p[0]
	}
	return d.take(1)[0]
}

// length takes the length of a record of version 2, which has to be in bounds.
func (d *Reader) length(least, most uint64) uint64 {
	if !d.v2 {
		return least
	}
	at := d.at
	n := d.u64()
	if n < least || n > most {
		d.wrong(at, "a record has a length of %d", n)
	}
	return n
}

func (d *Reader) name() string {
	size := d.length(4, 4+maxName)
	s := d.str(maxName)
	if d.v2 && size != uint64(4+len(s)) {
		d.wrong(d.at, "the name of a snapshot is not as long as its record")
	}
	return s
}

func (d *Reader) unknown(at uint64, tag byte) {
	if !d.v2 {
		d.wrong(at, "there is no record %q", tag)
		return
	}
	for n := d.u64(); n > 0 && d.failure == nil; {
		part := min(n, 4096)
		d.take(int(part))
		n -= part
	}
}

// Next goes to the next record; of one that has data they are read by Read. What was
// not read of the last one is passed over. io.EOF is the end of a stream that is whole:
// its checksum, if it has a seal, is right, and nothing follows.
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
		d.wrong(at, "a record of %d bytes at %d is not in the %d bytes of the image", r.Length, r.Offset, d.h.Size)
	case d.v2 && (zero && size != 16 || !zero && size-16 != r.Length):
		d.wrong(at, "a record has a length of %d", size)
	case !zero:
		d.left = r.Length
	}
	return r, d.failure
}

// Read reads the data of the last record.
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

// end reads the seal, and that nothing is behind it.
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
		d.wrong(at, "its checksum is wrong")
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

// take reads n bytes, at most 4096. After a failure they are zeroes.
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
