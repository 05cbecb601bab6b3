// Package xmltag reads the XML in which thin-provisioning-tools write metadata: tags with
// attributes and nothing between them, one after the other.
package xmltag

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
)

// maxTag bounds the length of a tag in bytes.
const maxTag = 1 << 16

// Reader reads tags.
type Reader struct {
	Line  int    // of the current tag's end
	Name  []byte // of the current tag, valid until Next
	End   bool   // </name>
	Empty bool   // <name/>

	s   *bufio.Reader
	raw []byte // the current tag, without its angle brackets
}

// NewReader returns a reader before the first tag.
func NewReader(r io.Reader) *Reader { return &Reader{Line: 1, s: bufio.NewReaderSize(r, maxTag)} }

// Next reads the next tag, skipping comments and the like.
func (x *Reader) Next() error {
	for {
		if err := x.gap(); err != nil {
			return err
		}
		if err := x.rest(); err != nil {
			return err
		}
		if x.raw[0] != '?' && x.raw[0] != '!' {
			return x.split()
		}
	}
}

// gap skips white space before a tag and the opening bracket.
func (x *Reader) gap() error {
	for {
		switch c, err := x.s.ReadByte(); {
		case err != nil:
			return err
		case c == '<':
			return nil
		case c == '\n':
			x.Line++
		case c != ' ' && c != '\t' && c != '\r':
			return fmt.Errorf("text %q outside tags", c)
		}
	}
}

// rest reads the rest of a tag into raw.
func (x *Reader) rest() error {
	x.raw = x.raw[:0]
	for {
		p, err := x.s.ReadSlice('>')
		x.Line += bytes.Count(p, []byte{'\n'})
		x.raw = append(x.raw, p...)
		if err == nil && x.complete() {
			x.raw = x.raw[:len(x.raw)-1]
			if len(x.raw) == 0 {
				return errors.New("empty tag")
			}
			return nil
		}
		if len(x.raw) > maxTag || err == bufio.ErrBufferFull {
			return errors.New("tag is too long")
		}
		if err != nil {
			return err
		}
	}
}

// complete reports whether the bracket at the end of raw closes the tag.
func (x *Reader) complete() bool {
	if bytes.HasPrefix(x.raw, []byte("!--")) {
		return len(x.raw) >= 6 && bytes.HasSuffix(x.raw, []byte("-->"))
	}
	var quote byte
	for _, c := range x.raw {
		switch {
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case c == quote:
			quote = 0
		}
	}
	return quote == 0
}

// split separates the name from the tag.
func (x *Reader) split() error {
	x.End, x.Empty = x.raw[0] == '/', x.raw[len(x.raw)-1] == '/'
	if x.End && x.Empty {
		return errors.New("empty tag")
	}
	if x.End {
		x.raw = x.raw[1:]
	}
	if x.Empty {
		x.raw = x.raw[:len(x.raw)-1]
	}
	n := bytes.IndexAny(x.raw, " \t\r\n")
	if n < 0 {
		n = len(x.raw)
	}
	x.Name, x.raw = x.raw[:n], x.raw[n:]
	return nil
}

// attr separates the next attribute from the tag; name is nil when there is none
// left.
func (x *Reader) attr() (name, value []byte, err error) {
	x.raw = bytes.TrimLeft(x.raw, " \t\r\n")
	if len(x.raw) == 0 {
		return nil, nil, nil
	}
	eq := bytes.IndexByte(x.raw, '=')
	if eq < 0 || len(x.raw) < eq+3 || x.raw[eq+1] != '"' && x.raw[eq+1] != '\'' {
		return nil, nil, fmt.Errorf("<%s> has an attribute without a value", x.Name)
	}
	n := bytes.IndexByte(x.raw[eq+2:], x.raw[eq+1])
	if n < 0 {
		return nil, nil, fmt.Errorf("<%s> has an attribute without an end quote", x.Name)
	}
	name, value = bytes.TrimRight(x.raw[:eq], " \t\r\n"), x.raw[eq+2:eq+2+n]
	x.raw = x.raw[eq+3+n:]
	return name, value, nil
}

// Field says where to store the value of an attribute.
type Field struct {
	Name     string
	Num      *uint64
	Str      *string
	Max      uint64 // of Num
	Optional bool
	Seen     bool // the attribute was there; set before, it must not be
}

// Max32 and Max64 are limits of a Field.
const (
	Max32 = 1<<32 - 1
	Max64 = 1<<64 - 1
)

// Fields reads the attributes of the tag.
func (x *Reader) Fields(fs ...Field) error {
	for {
		name, value, err := x.attr()
		if err != nil {
			return err
		}
		if name == nil {
			break
		}
		if err := x.set(fs, name, value); err != nil {
			return err
		}
	}
	for _, f := range fs {
		if !f.Seen && !f.Optional {
			return fmt.Errorf("<%s> lacks %s", x.Name, f.Name)
		}
	}
	return nil
}

func (x *Reader) set(fs []Field, name, value []byte) error {
	for i := range fs {
		f := &fs[i]
		if string(name) != f.Name || f.Seen {
			continue
		}
		f.Seen = true
		if f.Str != nil {
			*f.Str = unescape.Replace(string(value))
			return nil
		}
		n, ok := parseUint(value)
		if !ok || n > f.Max {
			return fmt.Errorf("<%s> has %s=%q, which is no number up to %d", x.Name, name, value, f.Max)
		}
		*f.Num = n
		return nil
	}
	return fmt.Errorf("<%s> has an attribute %q too many", x.Name, name)
}

var unescape = strings.NewReplacer("&quot;", `"`, "&apos;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&")

func parseUint(p []byte) (n uint64, ok bool) {
	for _, c := range p {
		hi, lo := bits.Mul64(n, 10)
		sum, carry := bits.Add64(lo, uint64(c-'0'), 0)
		if c < '0' || c > '9' || hi != 0 || carry != 0 {
			return 0, false
		}
		n = sum
	}
	return n, len(p) > 0
}
