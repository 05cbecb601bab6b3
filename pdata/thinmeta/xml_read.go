package thinmeta

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

// readXML gives the metadata in XML to out. Besides what thin_dump writes it
// understands the <def> and <ref> of newer tools: runs that devices share.
func readXML(r io.Reader, out emitter) error {
	x := &xmlReader{s: bufio.NewReaderSize(r, maxTag), out: out, line: 1, defs: map[string][]Run{}}
	for {
		err := x.next()
		if err == nil {
			err = x.tag()
		}
		if err == io.EOF && x.in == finished {
			return nil
		}
		if err == io.EOF {
			err = errors.New("the text ends too early")
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", x.line, err)
		}
	}
}

// section is where in the text the reader is.
type section int

const (
	outside section = iota
	inSuper
	inDevice
	inDef
	finished
)

type xmlReader struct {
	s    *bufio.Reader
	out  emitter
	line int
	in   section
	defs map[string][]Run
	def  string

	raw   []byte // the tag at hand, without its angle brackets
	name  []byte
	end   bool // </name>
	empty bool // <name/>
}

// next reads up to the end of a tag that is not a comment or the like.
func (x *xmlReader) next() error {
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

// gap skips the blanks before a tag and its opening bracket.
func (x *xmlReader) gap() error {
	for {
		switch c, err := x.s.ReadByte(); {
		case err != nil:
			return err
		case c == '<':
			return nil
		case c == '\n':
			x.line++
		case c != ' ' && c != '\t' && c != '\r':
			return fmt.Errorf("text %q outside tags", c)
		}
	}
}

// rest reads the rest of a tag into raw.
func (x *xmlReader) rest() error {
	x.raw = x.raw[:0]
	for {
		p, err := x.s.ReadSlice('>')
		x.line += bytes.Count(p, []byte{'\n'})
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

// complete reports whether the bracket at raw's end closes the tag.
func (x *xmlReader) complete() bool {
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

// split takes the name off the tag.
func (x *xmlReader) split() error {
	x.end, x.empty = x.raw[0] == '/', x.raw[len(x.raw)-1] == '/'
	if x.end && x.empty {
		return errors.New("empty tag")
	}
	if x.end {
		x.raw = x.raw[1:]
	}
	if x.empty {
		x.raw = x.raw[:len(x.raw)-1]
	}
	n := bytes.IndexAny(x.raw, " \t\r\n")
	if n < 0 {
		n = len(x.raw)
	}
	x.name, x.raw = x.raw[:n], x.raw[n:]
	return nil
}

// attr takes the next attribute off the tag; name is nil at its end.
func (x *xmlReader) attr() (name, value []byte, err error) {
	x.raw = bytes.TrimLeft(x.raw, " \t\r\n")
	if len(x.raw) == 0 {
		return nil, nil, nil
	}
	eq := bytes.IndexByte(x.raw, '=')
	if eq < 0 || len(x.raw) < eq+3 || x.raw[eq+1] != '"' && x.raw[eq+1] != '\'' {
		return nil, nil, fmt.Errorf("<%s> has an attribute without value", x.name)
	}
	n := bytes.IndexByte(x.raw[eq+2:], x.raw[eq+1])
	if n < 0 {
		return nil, nil, fmt.Errorf("<%s> has an attribute without end", x.name)
	}
	name, value = bytes.TrimRight(x.raw[:eq], " \t\r\n"), x.raw[eq+2:eq+2+n]
	x.raw = x.raw[eq+3+n:]
	return name, value, nil
}

// field says where the value of an attribute goes.
type field struct {
	name     string
	num      *uint64
	str      *string
	max      uint64
	optional bool
	seen     bool
}

const (
	max32 = 1<<32 - 1
	max64 = 1<<64 - 1
)

// fields reads the attributes of the tag.
func (x *xmlReader) fields(fs ...field) error {
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
		if !f.seen && !f.optional {
			return fmt.Errorf("<%s> lacks %s", x.name, f.name)
		}
	}
	return nil
}

func (x *xmlReader) set(fs []field, name, value []byte) error {
	for i := range fs {
		f := &fs[i]
		if string(name) != f.name || f.seen {
			continue
		}
		f.seen = true
		if f.str != nil {
			*f.str = unescape.Replace(string(value))
			return nil
		}
		n, ok := parseUint(value)
		if !ok || n > f.max {
			return fmt.Errorf("<%s> has %s=%q, which is no number up to %d", x.name, name, value, f.max)
		}
		*f.num = n
		return nil
	}
	return fmt.Errorf("<%s> has an attribute %q too many", x.name, name)
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

// tag acts on the tag at hand.
func (x *xmlReader) tag() error {
	name := string(x.name)
	switch {
	case x.end:
		return x.endTag(name)
	case x.in == outside && name == "superblock":
		return x.superblock()
	case x.in == inSuper && name == "device":
		return x.device()
	case x.in == inSuper && name == "def":
		return x.define()
	case (x.in == inDevice || x.in == inDef) && x.mapping(name):
		return x.run(name)
	case x.in == inDevice && name == "ref":
		return x.ref()
	}
	return fmt.Errorf("<%s> does not belong here", name)
}

func (x *xmlReader) mapping(name string) bool {
	return name == "single_mapping" || name == "range_mapping"
}

func (x *xmlReader) endTag(name string) error {
	switch {
	case x.mapping(name) || name == "ref":
		return nil
	case x.in == inSuper && name == "superblock":
		x.in = finished
		return x.out.end()
	case x.in == inDevice && name == "device":
		x.in = inSuper
		return x.out.endDevice()
	case x.in == inDef && name == "def":
		x.in = inSuper
		return nil
	}
	return fmt.Errorf("</%s> does not belong here", name)
}

func (x *xmlReader) superblock() error {
	var h Header
	var time, flags, version, size, snap uint64
	err := x.fields(field{name: "uuid", str: &h.UUID}, field{name: "time", num: &time, max: max32},
		field{name: "transaction", num: &h.TransactionID, max: max64},
		field{name: "flags", num: &flags, max: max32, optional: true},
		field{name: "version", num: &version, max: max32, optional: true},
		field{name: "data_block_size", num: &size, max: max32},
		field{name: "nr_data_blocks", num: &h.DataBlocks, max: 1 << 40},
		field{name: "metadata_snap", num: &snap, max: max64, optional: true})
	if err != nil {
		return err
	}
	h.Time, h.Flags, h.Version, h.DataBlockSize = uint32(time), uint32(flags), uint32(version), uint32(size)
	if err := x.out.begin(h); err != nil {
		return err
	}
	x.in = inSuper
	if x.empty {
		return x.endTag("superblock")
	}
	return nil
}

func (x *xmlReader) device() error {
	var id, created, snapped uint64
	var d Details
	err := x.fields(field{name: "dev_id", num: &id, max: max32}, field{name: "mapped_blocks", num: &d.Mapped, max: max64},
		field{name: "transaction", num: &d.TransactionID, max: max64}, field{name: "creation_time", num: &created, max: max32},
		field{name: "snap_time", num: &snapped, max: max32})
	if err != nil {
		return err
	}
	d.Created, d.Snapshotted = uint32(created), uint32(snapped)
	if err := x.out.device(uint32(id), d); err != nil {
		return err
	}
	x.in = inDevice
	if x.empty {
		return x.endTag("device")
	}
	return nil
}

func (x *xmlReader) run(name string) error {
	r := Run{Len: 1}
	var time uint64
	begin, data := "origin_block", "data_block"
	length := field{name: "length", num: &r.Len, max: max64, optional: true, seen: true}
	if name == "range_mapping" {
		begin, data = "origin_begin", "data_begin"
		length.optional, length.seen = false, false
	}
	err := x.fields(field{name: begin, num: &r.Thin, max: max64}, field{name: data, num: &r.Data, max: max64},
		length, field{name: "time", num: &time, max: max32})
	if err != nil {
		return err
	}
	r.Time = uint32(time)
	if x.in == inDef {
		x.defs[x.def] = append(x.defs[x.def], r)
		return nil
	}
	return x.out.run(r)
}

func (x *xmlReader) define() error {
	if err := x.fields(field{name: "name", str: &x.def}); err != nil {
		return err
	}
	if _, ok := x.defs[x.def]; ok {
		return fmt.Errorf("<def> %q comes twice", x.def)
	}
	x.defs[x.def] = []Run{}
	if !x.empty {
		x.in = inDef
	}
	return nil
}

func (x *xmlReader) ref() error {
	var name string
	if err := x.fields(field{name: "name", str: &name}); err != nil {
		return err
	}
	runs, ok := x.defs[name]
	if !ok {
		return fmt.Errorf("<ref> to %q, which is not defined", name)
	}
	for _, r := range runs {
		if err := x.out.run(r); err != nil {
			return err
		}
	}
	return nil
}
