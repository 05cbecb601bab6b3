package eratools

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/era/erameta"
	"udm/targets/internal/xmltag"
)

// Restore writes new metadata to dev from XML, whatever dev held before. A metadata
// snapshot is not restored.
func Restore(e env.Env, r io.Reader, dev blk.Device) error {
	bulk, err := pdata.NewBulk(e, dev, erameta.SuperBlock)
	if err != nil {
		return err
	}
	x := &restorer{Reader: xmltag.NewReader(r), bulk: bulk, sets: map[uint32]erameta.Writeset{}}
	if err := x.read(); err != nil {
		bulk.Abandon()
		if errors.Is(err, pdata.ErrFull) {
			return pdata.ErrFull
		}
		return fmt.Errorf("line %d: %w", x.Line, err)
	}
	return nil
}

// section is the position of the reader in the structure of the text.
type section int

const (
	outside section = iota
	inSuper
	inWriteset
	inArray
	finished
)

// restorer builds metadata bottom up from XML.
type restorer struct {
	*xmltag.Reader
	bulk  *pdata.Bulk
	in    section
	super erameta.Super
	eras  []uint32
	sets  map[uint32]erameta.Writeset
	era   uint32   // of the writeset that is being read
	bits  uint32   // its size
	words []uint64 // and its bits
}

func (x *restorer) read() error {
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

func (x *restorer) tag() error {
	name := string(x.Name)
	switch {
	case x.End:
		return x.endTag(name)
	case x.in == outside && name == "superblock":
		return x.superblock()
	case x.in == inSuper && name == "writeset":
		return x.writeset()
	case x.in == inWriteset && name == "bit":
		return x.bit()
	case x.in == inSuper && name == "era_array":
		return x.enter(inArray, name)
	case x.in == inArray && name == "era":
		return x.value()
	}
	return fmt.Errorf("<%s> does not belong here", name)
}

// enter goes on in a section, which may be empty.
func (x *restorer) enter(s section, name string) error {
	x.in = s
	if x.Empty {
		return x.endTag(name)
	}
	return nil
}

func (x *restorer) endTag(name string) error {
	switch {
	case name == "bit" || name == "era":
		return nil
	case x.in == inSuper && name == "superblock":
		x.in = finished
		return x.finish()
	case x.in == inWriteset && name == "writeset":
		x.in = inSuper
		return x.endWriteset()
	case x.in == inArray && name == "era_array":
		x.in = inSuper
		return nil
	}
	return fmt.Errorf("</%s> does not belong here", name)
}

// number is a field of 32 bits.
func number(name string, to *uint64) xmltag.Field {
	return xmltag.Field{Name: name, Num: to, Max: xmltag.Max32}
}

func (x *restorer) superblock() error {
	var uuid string
	var size, blocks, era uint64
	err := x.Fields(xmltag.Field{Name: "uuid", Str: &uuid, Optional: true}, number("block_size", &size), number("nr_blocks", &blocks), number("current_era", &era))
	if err != nil {
		return err
	}
	if blocks > erameta.MaxBlocks {
		return fmt.Errorf("nr_blocks is %d, above %d", blocks, erameta.MaxBlocks)
	}
	if blocks/uint64(pdata.ArrayEntries(4)) >= x.bulk.Blocks() {
		return pdata.ErrFull
	}
	x.super = erameta.Super{Version: erameta.SuperVersion, BlockSize: uint32(size), MetadataBlockSize: pdata.BlockSectors,
		Blocks: uint32(blocks), Era: uint32(era)}
	x.eras = make([]uint32, blocks)
	return x.enter(inSuper, "superblock")
}

func (x *restorer) writeset() error {
	var era, bits uint64
	if err := x.Fields(number("era", &era), number("nr_bits", &bits)); err != nil {
		return err
	}
	if _, twice := x.sets[uint32(era)]; twice {
		return fmt.Errorf("era %d has two writesets", era)
	}
	if bits/64/uint64(pdata.ArrayEntries(8)) >= x.bulk.Blocks() {
		return pdata.ErrFull
	}
	x.era, x.bits, x.words = uint32(era), uint32(bits), make([]uint64, (bits+63)/64)
	return x.enter(inWriteset, "writeset")
}

func (x *restorer) bit() error {
	var block uint64
	var value string
	if err := x.Fields(number("block", &block), xmltag.Field{Name: "value", Str: &value}); err != nil {
		return err
	}
	if block >= uint64(x.bits) {
		return fmt.Errorf("bit %d of %d", block, x.bits)
	}
	mask := uint64(1) << (block % 64)
	switch value {
	case "true":
		x.words[block/64] |= mask
	case "false":
		x.words[block/64] &^= mask
	default:
		return fmt.Errorf("<bit> has value=%q, which is neither true nor false", value)
	}
	return nil
}

func (x *restorer) endWriteset() error {
	a := x.bulk.NewArrayBuilder(8)
	var p [8]byte
	for _, w := range x.words {
		le.PutUint64(p[:], w)
		if err := a.Add(p[:]); err != nil {
			return err
		}
	}
	root, err := a.Finish()
	x.sets[x.era] = erameta.Writeset{Bits: x.bits, Root: root}
	return err
}

func (x *restorer) value() error {
	var block, era uint64
	if err := x.Fields(number("block", &block), number("era", &era)); err != nil {
		return err
	}
	if block >= uint64(len(x.eras)) {
		return fmt.Errorf("block %d of %d", block, len(x.eras))
	}
	x.eras[block] = uint32(era)
	return nil
}

func (x *restorer) finish() (err error) {
	if x.super.Sets, err = x.tree(); err != nil {
		return err
	}
	a := x.bulk.NewArrayBuilder(4)
	var p [4]byte
	for _, era := range x.eras {
		le.PutUint32(p[:], era)
		if err := a.Add(p[:]); err != nil {
			return err
		}
	}
	if x.super.Eras, err = a.Finish(); err != nil {
		return err
	}
	if x.super.Metadata, err = x.bulk.MetadataMap(); err != nil {
		return err
	}
	var block [pdata.BlockSize]byte
	x.super.Encode(block[:])
	return x.bulk.Finish(erameta.SuperBlock, erameta.KindSuper, block[:])
}

// tree writes the tree of writesets.
func (x *restorer) tree() (root uint64, err error) {
	t := x.bulk.NewBuilder(erameta.WritesetCodec.Size)
	for _, era := range slices.Sorted(maps.Keys(x.sets)) {
		var p [12]byte
		erameta.WritesetCodec.Put(p[:], x.sets[era])
		if err := t.Add(uint64(era), p[:]); err != nil {
			return 0, err
		}
	}
	return t.Finish()
}
