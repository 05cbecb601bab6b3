package eratools

import (
	"bufio"
	"fmt"
	"io"

	"udm/blk"
	"udm/env"
	"udm/targets/era/erameta"
)

// WrittenSince calls fn for each run of blocks [begin, end) that were written in era since
// or later, in order. snap asks the metadata snapshot instead.
func WrittenSince(e env.Env, dev blk.Device, since uint32, snap bool, fn func(begin, end uint32) error) error {
	s, err := open(e, dev, snap, nil)
	if err != nil {
		return err
	}
	written := make([]uint64, (uint64(s.super.Blocks)+63)/64)
	add := func(block uint32) {
		if block < s.super.Blocks {
			written[block/64] |= 1 << (block % 64)
		}
	}
	err = s.writesets(func(era uint32, w erameta.Writeset) error {
		if era < since {
			return nil
		}
		return s.bits(w, func(block uint32, set bool) error {
			if set {
				add(block)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	err = s.eras(func(block, era uint32) error {
		if era >= since {
			add(block)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return runs(written, s.super.Blocks, fn)
}

// runs calls fn for each run of set bits.
func runs(words []uint64, n uint32, fn func(begin, end uint32) error) error {
	has := func(b uint32) bool { return words[b/64]>>(b%64)&1 != 0 }
	for b := uint32(0); b < n; b++ {
		if !has(b) {
			continue
		}
		begin := b
		for b < n && has(b) {
			b++
		}
		if err := fn(begin, b); err != nil {
			return err
		}
	}
	return nil
}

// Invalidate writes what WrittenSince tells as era_invalidate does.
func Invalidate(e env.Env, dev blk.Device, w io.Writer, since uint32, snap bool) error {
	b := bufio.NewWriter(w)
	fmt.Fprintln(b, "<blocks>")
	err := WrittenSince(e, dev, since, snap, func(begin, end uint32) error {
		if end == begin+1 {
			_, err := fmt.Fprintf(b, "  <block block=\"%d\"/>\n", begin)
			return err
		}
		_, err := fmt.Fprintf(b, "  <range begin=\"%d\" end = \"%d\"/>\n", begin, end)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(b, "</blocks>")
	return b.Flush()
}
