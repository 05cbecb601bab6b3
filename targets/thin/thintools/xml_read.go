package thintools

import (
	"errors"
	"fmt"
	"io"

	"udm/targets/internal/xmltag"
	"udm/targets/thin/thinmeta"
)

type field = xmltag.Field

// readXML reads metadata from XML into out. Beyond the output of thin_dump it
// supports <def> and <ref> of newer tools: runs that devices share.
func readXML(r io.Reader, out emitter) error {
	x := &xmlReader{Reader: xmltag.NewReader(r), out: out, defs: map[string][]Run{}}
	for {
		err := x.Next()
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
			return fmt.Errorf("line %d: %w", x.Line, err)
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
	*xmltag.Reader
	out  emitter
	in   section
	defs map[string][]Run
	def  string
}

// tag handles the current tag.
func (x *xmlReader) tag() error {
	name := string(x.Name)
	switch {
	case x.End:
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
	err := x.Fields(field{Name: "uuid", Str: &h.UUID}, field{Name: "time", Num: &time, Max: xmltag.Max32},
		field{Name: "transaction", Num: &h.TransactionID, Max: xmltag.Max64},
		field{Name: "flags", Num: &flags, Max: xmltag.Max32, Optional: true},
		field{Name: "version", Num: &version, Max: xmltag.Max32, Optional: true},
		field{Name: "data_block_size", Num: &size, Max: xmltag.Max32},
		field{Name: "nr_data_blocks", Num: &h.DataBlocks, Max: 1 << 40},
		field{Name: "metadata_snap", Num: &snap, Max: xmltag.Max64, Optional: true})
	if err != nil {
		return err
	}
	h.Time, h.Flags, h.Version, h.DataBlockSize = uint32(time), uint32(flags), uint32(version), uint32(size)
	if err := x.out.begin(h); err != nil {
		return err
	}
	x.in = inSuper
	if x.Empty {
		return x.endTag("superblock")
	}
	return nil
}

func (x *xmlReader) device() error {
	var id, created, snapped uint64
	var d thinmeta.Details
	err := x.Fields(field{Name: "dev_id", Num: &id, Max: xmltag.Max32}, field{Name: "mapped_blocks", Num: &d.Mapped, Max: xmltag.Max64},
		field{Name: "transaction", Num: &d.TransactionID, Max: xmltag.Max64}, field{Name: "creation_time", Num: &created, Max: xmltag.Max32},
		field{Name: "snap_time", Num: &snapped, Max: xmltag.Max32})
	if err != nil {
		return err
	}
	d.Created, d.Snapshotted = uint32(created), uint32(snapped)
	if err := x.out.device(uint32(id), d); err != nil {
		return err
	}
	x.in = inDevice
	if x.Empty {
		return x.endTag("device")
	}
	return nil
}

func (x *xmlReader) run(name string) error {
	r := Run{Len: 1}
	var time uint64
	begin, data := "origin_block", "data_block"
	length := field{Name: "length", Num: &r.Len, Max: xmltag.Max64, Optional: true, Seen: true}
	if name == "range_mapping" {
		begin, data = "origin_begin", "data_begin"
		length.Optional, length.Seen = false, false
	}
	err := x.Fields(field{Name: begin, Num: &r.Thin, Max: xmltag.Max64}, field{Name: data, Num: &r.Data, Max: xmltag.Max64},
		length, field{Name: "time", Num: &time, Max: xmltag.Max32})
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
	if err := x.Fields(field{Name: "name", Str: &x.def}); err != nil {
		return err
	}
	if _, ok := x.defs[x.def]; ok {
		return fmt.Errorf("<def> %q is defined twice", x.def)
	}
	x.defs[x.def] = []Run{}
	if !x.Empty {
		x.in = inDef
	}
	return nil
}

func (x *xmlReader) ref() error {
	var name string
	if err := x.Fields(field{Name: "name", Str: &name}); err != nil {
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
