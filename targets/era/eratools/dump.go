package eratools

import (
	"bufio"
	"io"
	"strconv"

	"udm/blk"
	"udm/env"
	"udm/targets/era/erameta"
)

// DumpOptions control Dump.
type DumpOptions struct {
	Logical bool        // writesets are not listed; the era array says what they say
	Repair  bool        // skip damage
	Damage  func(error) // called for damage that Repair skips; may be nil
}

// Dump writes metadata as XML that Restore and era_restore read and that is identical to
// era_dump's.
func Dump(e env.Env, dev blk.Device, w io.Writer, o DumpOptions) error {
	var damage func(error)
	if o.Repair {
		damage = func(err error) {
			if o.Damage != nil {
				o.Damage(err)
			}
		}
	}
	s, err := open(e, dev, false, damage)
	if err != nil {
		return err
	}
	x := &xmlWriter{w: bufio.NewWriterSize(w, 1<<16)}
	x.str(`<superblock uuid=""`).attr("block_size", s.super.BlockSize).attr("nr_blocks", s.super.Blocks).attr("current_era", s.super.Era).str(">\n")
	if o.Logical {
		err = x.logical(s)
	} else {
		err = x.physical(s)
	}
	if err != nil {
		return err
	}
	x.str("</superblock>\n")
	return x.w.Flush()
}

// xmlWriter writes pieces of text and numbers; the first error stays in the buffer.
type xmlWriter struct {
	w   *bufio.Writer
	num [20]byte
}

func (x *xmlWriter) str(s string) *xmlWriter { _, _ = x.w.WriteString(s); return x }

func (x *xmlWriter) n(v uint32) *xmlWriter {
	_, _ = x.w.Write(strconv.AppendUint(x.num[:0], uint64(v), 10))
	return x
}

// attr writes an attribute.
func (x *xmlWriter) attr(name string, v uint32) *xmlWriter {
	return x.str(" ").str(name).str(`="`).n(v).str(`"`)
}

func (x *xmlWriter) physical(s *source) error {
	err := s.writesets(func(era uint32, w erameta.Writeset) error {
		x.str("  <writeset").attr("era", era).attr("nr_bits", w.Bits).str(">\n")
		err := s.bits(w, func(block uint32, set bool) error {
			x.str("    <bit").attr("block", block).str(` value="`).str(strconv.FormatBool(set))
			_, err := x.w.WriteString("\"/>\n")
			return err
		})
		x.str("  </writeset>\n")
		return err
	})
	if err != nil {
		return err
	}
	return x.array(s.eras)
}

func (x *xmlWriter) array(each func(func(block, era uint32) error) error) error {
	x.str("  <era_array>\n")
	err := each(func(block, era uint32) error {
		x.str("    <era").attr("block", block).attr("era", era)
		_, err := x.w.WriteString("/>\n")
		return err
	})
	x.str("  </era_array>\n")
	return err
}

// logical writes the era array as it will be when all writesets are digested.
func (x *xmlWriter) logical(s *source) error {
	latest, err := s.latest()
	if err != nil {
		return err
	}
	return x.array(func(fn func(block, era uint32) error) error {
		return s.eras(func(block, era uint32) error {
			if era := max(era, latest[block]); era > 0 {
				return fn(block, era)
			}
			return fn(block, 0)
		})
	})
}

// latest is the newest writeset's era of each block that is in one.
func (s *source) latest() (map[uint32]uint32, error) {
	latest := map[uint32]uint32{}
	err := s.writesets(func(era uint32, w erameta.Writeset) error {
		return s.bits(w, func(block uint32, set bool) error {
			if set {
				latest[block] = era
			}
			return nil
		})
	})
	return latest, err
}
