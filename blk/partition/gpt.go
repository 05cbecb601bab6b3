package partition

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"unicode/utf16"
)

// A header: 0 "EFI PART", 8 revision:32, 12 size:32, 16 crc:32 (with this field
// zero), 24 own block:64, 32 block of the other copy:64, 40 first usable block:64,
// 48 last usable block:64, 56 disk GUID, 72 block of the entries:64, 80 number of
// entries:32, 84 size of an entry:32, 88 crc of the entries:32.
//
// An entry: 0 type GUID, 16 own GUID, 32 first block:64, 40 last block:64,
// 48 attributes:64, 56 name, 36 characters of UTF-16.
const (
	gptHeaderSize = 92
	gptEntrySize  = 128
	maxGPTTable   = 1 << 20 // bytes of entries; 128 entries of 128 bytes are usual
)

// copyOf is one copy of a GPT.
type copyOf struct {
	other   uint64 // block of the other header
	id      []byte
	size    int // of an entry
	entries []byte
}

// gpt reads both copies, for each possible block size.
func (r *reader) gpt() error {
	var why error
	for _, size := range []uint64{r.block, 4096} {
		if size < r.block || size == r.block && why != nil {
			continue
		}
		t := &reader{file: r.file, block: size}
		err := t.gptIn()
		if err == nil {
			r.block, r.table = t.block, t.table
			return nil
		}
		if why == nil {
			why = err
		}
	}
	return why
}

func (r *reader) gptIn() error {
	first, err1 := r.gptCopy(1)
	last := r.blocks() - 1
	if err1 == nil && first.other > 1 && first.other < last {
		last = first.other // the disk has grown since
		r.damage("the second copy of the table is not at the end of the disk, which has grown; sfdisk --relocate gpt-bak-std moves it there")
	}
	second, err2 := r.gptCopy(last)
	c := first
	switch {
	case err1 != nil && err2 != nil:
		return fmt.Errorf("the MBR says that there is a GPT, but both copies are damaged: %w; %w", err1, err2)
	case err1 != nil:
		c = second
		r.damage("the first copy of the table is damaged (%v): the second is used; sfdisk repairs it when it writes", err1)
	case err2 != nil:
		r.damage("the second copy of the table is damaged (%v); sfdisk repairs it when it writes", err2)
	case !bytes.Equal(first.entries, second.entries) || !bytes.Equal(first.id, second.id):
		r.damage("the two copies of the table differ: the first is used")
	}
	r.table = Table{Kind: GPT, ID: guid(c.id), Block: uint32(r.block), Damage: r.table.Damage}
	r.gptEntries(c)
	return nil
}

// gptCopy reads the copy whose header is in a block.
func (r *reader) gptCopy(block uint64) (*copyOf, error) {
	h, err := r.read(block, 1)
	if err != nil {
		return nil, err
	}
	size := le.Uint32(h[12:])
	switch {
	case string(h[:8]) != "EFI PART":
		return nil, fmt.Errorf("block %d is not a GPT header", block)
	case size < gptHeaderSize || uint64(size) > r.block:
		return nil, fmt.Errorf("the header in block %d says that it has %d bytes", block, size)
	case !checks(h[:size]):
		return nil, fmt.Errorf("the checksum of the header in block %d is wrong", block)
	case le.Uint64(h[24:]) != block:
		return nil, fmt.Errorf("the header in block %d says that it is in block %d", block, le.Uint64(h[24:]))
	}
	c := &copyOf{other: le.Uint64(h[32:]), id: h[56:72], size: int(le.Uint32(h[84:]))}
	n := uint64(le.Uint32(h[80:])) * uint64(c.size)
	if c.size < gptEntrySize || c.size%8 != 0 || n > maxGPTTable {
		return nil, fmt.Errorf("the header in block %d says that there are %d entries of %d bytes", block, le.Uint32(h[80:]), c.size)
	}
	p, err := r.read(le.Uint64(h[72:]), (n+r.block-1)/r.block)
	if err != nil {
		return nil, fmt.Errorf("the entries of the header in block %d: %w", block, err)
	}
	if c.entries = p[:n]; crc32.ChecksumIEEE(c.entries) != le.Uint32(h[88:]) {
		return nil, errors.New("the checksum of the entries is wrong")
	}
	return c, nil
}

// checks reports whether the checksum of a header is right.
func checks(h []byte) bool {
	want := le.Uint32(h[16:])
	h = bytes.Clone(h)
	clear(h[16:20])
	return crc32.ChecksumIEEE(h) == want
}

func (r *reader) gptEntries(c *copyOf) {
	for i := range len(c.entries) / c.size {
		e := c.entries[i*c.size:]
		if bytes.Equal(e[:16], make([]byte, 16)) {
			continue
		}
		first, last := le.Uint64(e[32:]), le.Uint64(e[40:])
		count := last - first + 1
		if last < first {
			count = 0
		}
		r.add(Partition{
			Number: i + 1, Type: guid(e), ID: guid(e[16:]), Name: name(e[56:128]), Bootable: le.Uint64(e[48:])&4 != 0,
		}, first, count)
	}
}

// guid formats a GUID, whose first three fields are little-endian.
func guid(p []byte) string {
	return strings.ToUpper(fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(p), le.Uint16(p[4:]), le.Uint16(p[6:]), p[8:10], p[10:16]))
}

func name(p []byte) string {
	var u []uint16
	for ; len(p) > 0 && le.Uint16(p) != 0; p = p[2:] {
		u = append(u, le.Uint16(p))
	}
	return string(utf16.Decode(u))
}
