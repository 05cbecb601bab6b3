package rbddiff

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

var le = binary.LittleEndian

// Writer writes a stream. After an error, all further calls return the same error.
type Writer struct {
	out  *bufio.Writer
	sum  hash.Hash
	skip uint64 // bytes of the stream still to be dropped
	size uint64 // of the image
	at   uint64 // end of the last record in the image
	err  error
}

// NewWriter starts a stream with its header. The first skip bytes of the stream are
// generated for the checksum, but not written to w.
func NewWriter(w io.Writer, skip uint64, h Header) (*Writer, error) {
	sw := &Writer{out: bufio.NewWriterSize(w, 1<<16), sum: sha256.New(), skip: skip, size: h.Size}
	if len(h.From) > maxName || len(h.To) > maxName {
		return nil, fmt.Errorf("the name of a snapshot is longer than %d bytes", maxName)
	}
	p := []byte(bannerV1)
	if h.From != "" {
		p = appendString(append(p, tagFrom), h.From)
	}
	if h.To != "" {
		p = appendString(append(p, tagTo), h.To)
	}
	sw.write(le.AppendUint64(append(p, tagSize), h.Size))
	return sw, sw.err
}

func appendString(p []byte, s string) []byte {
	return append(le.AppendUint32(p, uint32(len(s))), s...)
}

// Data writes a record of data at an offset. Offsets must be ascending, and records must not
// overlap.
func (w *Writer) Data(offset uint64, p []byte) error {
	if w.record(tagData, offset, uint64(len(p))) {
		w.write(p)
	}
	return w.err
}

// Zero writes a record of zeroes. The rules for Data apply.
func (w *Writer) Zero(offset, length uint64) error {
	w.record(tagZero, offset, length)
	return w.err
}

func (w *Writer) record(tag byte, offset, length uint64) bool {
	switch {
	case w.err != nil || length == 0:
		return false
	case offset < w.at || length > w.size || offset > w.size-length:
		w.err = fmt.Errorf("a record of %d bytes at %d starts before byte %d or exceeds the image of %d bytes", length, offset, w.at, w.size)
		return false
	}
	w.at = offset + length
	w.write(le.AppendUint64(le.AppendUint64([]byte{tag}, offset), length))
	return w.err == nil
}

// Close writes the end of the stream with its seal. It does not close the underlying writer.
func (w *Writer) Close(s Seal) error {
	if w.err == nil && (len(s.From) > maxID || len(s.To) > maxID) {
		w.err = fmt.Errorf("an id is longer than %d bytes", maxID)
	}
	w.flush() // so that the rest is one write
	p := append([]byte{tagEnd}, sealMark...)
	w.write(appendString(appendString(p, s.From), s.To))
	w.write(w.sum.Sum(nil))
	w.flush()
	return w.err
}

func (w *Writer) flush() {
	if w.err == nil {
		w.err = w.out.Flush()
	}
}

func (w *Writer) write(p []byte) {
	if w.err != nil {
		return
	}
	w.sum.Write(p)
	skip := min(w.skip, uint64(len(p)))
	w.skip -= skip
	_, w.err = w.out.Write(p[skip:])
}
