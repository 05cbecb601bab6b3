package thintools

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"udm/targets/thin/thinmeta"
)

// maxTag bounds the length of a tag in bytes.
const maxTag = 1 << 16

// readXML reads metadata from XML into out. Beyond the output of thin_dump it
// supports <def> and <ref> of newer tools: runs that devices share.
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
			err = errors.New("unexpected end of the text")
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", x.line, err)
		}
	}
}

// section is the position of the reader in the structure of the text.
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

	raw   []byte // the current tag, without its angle brackets
	name  []byte
	end   bool // </name>
	empty bool // <name/>
}

// tag handles the current tag.
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
	var d thinmeta.Details
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
		return fmt.Errorf("<def> %q is defined twice", x.def)
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
