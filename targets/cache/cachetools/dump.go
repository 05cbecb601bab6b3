package cachetools

import (
	"bufio"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"strings"

	"udm/blk"
	"udm/env"
	"udm/pdata"
	"udm/targets/cache/cachemeta"
)

// DumpOptions control Dump.
type DumpOptions struct {
	Repair bool        // skip damage
	Damage func(error) // called for damage that Repair skips; may be nil
}

// Dump writes metadata as XML that Restore and cache_restore read and that is that of
// cache_dump.
func Dump(e env.Env, dev blk.Device, w io.Writer, o DumpOptions) error {
	x := &xmlWriter{w: bufio.NewWriterSize(w, 1<<16)}
	if err := emit(e, dev, o, x); err != nil {
		return err
	}
	return x.w.Flush()
}

// emitter takes metadata: the superblock, then all mappings, hints and discards in
// order.
type emitter interface {
	begin(s *cachemeta.Super) error
	mapping(b Block) error
	hint(cb, hint uint32) error
	discard(begin, end uint64) error
	end() error
}

func emit(e env.Env, dev blk.Device, o DumpOptions, out emitter) error {
	s, err := cachemeta.ReadSuper(e, dev)
	if err != nil {
		return err
	}
	if s.Version < 1 || s.Version > 2 {
		return fmt.Errorf("metadata has version %d, want 1 or 2", s.Version)
	}
	var damage func(error)
	if o.Repair {
		damage = func(err error) {
			if o.Damage != nil {
				o.Damage(err)
			}
		}
	}
	d := &dumper{bm: pdata.NewBlockManager(e, dev, 0), s: s, damage: damage, out: out}
	return d.run()
}

type dumper struct {
	bm     *pdata.BlockManager
	s      *cachemeta.Super
	damage func(error)
	out    emitter
}

func (d *dumper) run() error {
	if err := d.out.begin(d.s); err != nil {
		return err
	}
	var used []uint32
	err := blocksOf(d.bm, d.s, d.damage, func(b Block) error {
		used = append(used, b.CBlock)
		return d.out.mapping(b)
	})
	if err != nil {
		return err
	}
	hints, err := hintsOf(d.bm, d.s, d.damage)
	if err != nil {
		return err
	}
	for _, cb := range used {
		if h, ok := hints[cb]; ok {
			if err := d.out.hint(cb, h); err != nil {
				return err
			}
		}
	}
	if err := d.discards(); err != nil {
		return err
	}
	return d.out.end()
}

// discards emits runs of discarded blocks. What is damaged counts as not discarded.
func (d *dumper) discards() error {
	begin, end := uint64(0), uint64(0)
	flush := func() error {
		if begin == end {
			return nil
		}
		return d.out.discard(begin, end)
	}
	err := pdata.WalkArray(d.bm, d.s.Discards, 8, d.damage, func(first uint64, values []byte, n int) error {
		for i := range uint64(n) * 64 {
			at := first*64 + i
			if at >= d.s.DiscardBlocks || le.Uint64(values[i/64*8:])>>(i%64)&1 == 0 {
				continue
			}
			if at != end {
				if err := flush(); err != nil {
					return err
				}
				begin = at
			}
			end = at + 1
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	return pdata.In("discard bitset", err)
}

// xmlWriter writes the XML of cache_dump; the first error stays in the buffer.
type xmlWriter struct {
	w    *bufio.Writer
	part int // 0: mappings, 1: hints, 2: discards
}

var parts = []string{"mappings", "hints", "discards"}

func (x *xmlWriter) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(x.w, format, args...)
	return err
}

func (x *xmlWriter) begin(s *cachemeta.Super) error {
	_ = x.printf("<superblock uuid=\"\" block_size=\"%d\" nr_cache_blocks=\"%d\" policy=\"%s\" hint_width=\"%d\">\n", s.BlockSize, s.CacheBlocks, escape(s.PolicyName), s.HintSize)
	return x.printf("  <mappings>\n")
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}

// to goes on to a part.
func (x *xmlWriter) to(part int) {
	for ; x.part < part; x.part++ {
		_ = x.printf("  </%s>\n", parts[x.part])
		if next := x.part + 1; next < 2 || next == part && part == 2 {
			_ = x.printf("  <%s>\n", parts[next])
		}
	}
}

func (x *xmlWriter) mapping(b Block) error {
	return x.printf("    <mapping cache_block=\"%d\" origin_block=\"%d\" dirty=\"%v\"/>\n", b.CBlock, b.OBlock, b.Dirty)
}

func (x *xmlWriter) hint(cb, hint uint32) error {
	x.to(1)
	var p [4]byte
	le.PutUint32(p[:], hint)
	return x.printf("    <hint cache_block=\"%d\" data=\"%s\"/>\n", cb, base64.StdEncoding.EncodeToString(p[:]))
}

func (x *xmlWriter) discard(begin, end uint64) error {
	x.to(2)
	return x.printf("    <discard dbegin=\"%d\" dend=\"%d\"/>\n", begin, end)
}

func (x *xmlWriter) end() error {
	x.to(1)
	_ = x.printf("  </%s>\n", parts[x.part])
	return x.printf("</superblock>\n")
}
