package cachetools

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"

	"udm/targets/cache/cachemeta"
	"udm/targets/internal/xmltag"
)

// section is the position of the reader in the structure of the text.
type section int

const (
	outside section = iota
	inSuper
	inMappings
	inHints
	inDiscards
	finished
)

type xmlReader struct {
	*xmltag.Reader
	in  section
	out emitter
}

func (x *xmlReader) read() error {
	for {
		err := x.Next()
		switch {
		case err == io.EOF && x.in == finished:
			return nil
		case err == io.EOF:
			return errors.New("unexpected end of the text")
		case err == nil:
			err = x.tag()
		}
		if err != nil {
			return err
		}
	}
}

var sections = map[string]section{"mappings": inMappings, "hints": inHints, "discards": inDiscards}

func (x *xmlReader) tag() error {
	name := string(x.Name)
	switch {
	case x.End:
		return x.endTag(name)
	case x.in == outside && name == "superblock":
		return x.superblock()
	case x.in == inSuper && sections[name] != 0:
		x.in = sections[name]
		if x.Empty {
			x.in = inSuper
		}
		return nil
	case x.in == inMappings && name == "mapping":
		return x.mapping()
	case x.in == inHints && name == "hint":
		return x.hint()
	case x.in == inDiscards && name == "discard":
		return x.discard()
	}
	return fmt.Errorf("<%s> does not belong here", name)
}

func (x *xmlReader) endTag(name string) error {
	switch {
	case name == "mapping" || name == "hint" || name == "discard":
		return nil
	case x.in == inSuper && name == "superblock":
		x.in = finished
		return x.out.end()
	case sections[name] != 0 && x.in == sections[name]:
		x.in = inSuper
		return nil
	}
	return fmt.Errorf("</%s> does not belong here", name)
}

func (x *xmlReader) superblock() error {
	var uuid string
	var size, blocks, width uint64
	s := cachemeta.Super{PolicyVersion: [3]uint32{2}}
	err := x.Fields(xmltag.Field{Name: "uuid", Str: &uuid, Optional: true}, xmltag.Field{Name: "block_size", Num: &size, Max: xmltag.Max32},
		xmltag.Field{Name: "nr_cache_blocks", Num: &blocks, Max: 1 << 31}, xmltag.Field{Name: "policy", Str: &s.PolicyName},
		xmltag.Field{Name: "hint_width", Num: &width, Max: 128})
	if err != nil {
		return err
	}
	if len(s.PolicyName) > 15 {
		return fmt.Errorf("policy %q has more than 15 letters", s.PolicyName)
	}
	s.BlockSize, s.CacheBlocks, s.HintSize = uint32(size), uint32(blocks), uint32(width)
	if err := x.out.begin(&s); err != nil {
		return err
	}
	x.in = inSuper
	if x.Empty {
		return x.endTag("superblock")
	}
	return nil
}

func (x *xmlReader) mapping() error {
	var b Block
	var cb uint64
	var dirty string
	err := x.Fields(xmltag.Field{Name: "cache_block", Num: &cb, Max: xmltag.Max32}, xmltag.Field{Name: "origin_block", Num: &b.OBlock, Max: xmltag.Max64},
		xmltag.Field{Name: "dirty", Str: &dirty})
	if err != nil {
		return err
	}
	if dirty != "true" && dirty != "false" {
		return fmt.Errorf("<mapping> has dirty=%q, which is neither true nor false", dirty)
	}
	b.CBlock, b.Dirty = uint32(cb), dirty == "true"
	return x.out.mapping(b)
}

func (x *xmlReader) hint() error {
	var cb uint64
	var data string
	if err := x.Fields(xmltag.Field{Name: "cache_block", Num: &cb, Max: xmltag.Max32}, xmltag.Field{Name: "data", Str: &data}); err != nil {
		return err
	}
	p, err := base64.StdEncoding.DecodeString(data)
	if err != nil || len(p) != 4 {
		return fmt.Errorf("<hint> has data=%q, which is not 4 bytes in base64", data)
	}
	return x.out.hint(uint32(cb), le.Uint32(p))
}

func (x *xmlReader) discard() error {
	var begin, end uint64
	if err := x.Fields(xmltag.Field{Name: "dbegin", Num: &begin, Max: xmltag.Max64}, xmltag.Field{Name: "dend", Num: &end, Max: xmltag.Max64}); err != nil {
		return err
	}
	return x.out.discard(begin, end)
}
