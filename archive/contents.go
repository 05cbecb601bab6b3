package archive

import (
	"cmp"
	"encoding/json"
	"slices"
)

// location is where a chunk lies.
type location struct {
	id     ID
	pack   uint32 // index in packs
	offset uint32
	length uint32 // of the blob
}

// extent is a run of a snapshot's sectors that a chunk has. What no extent has is zeroes.
type extent struct {
	sector  uint64
	sectors uint32
	chunk   uint32 // index in chunks
	skip    uint32 // sectors of the chunk before it
}

func (e *extent) end() uint64 { return e.sector + uint64(e.sectors) }

// contents say in which chunks sectors are.
type contents struct {
	packs   []string
	chunks  []location
	extents []extent
}

// place is where a chunk lies, in any contents.
type place struct {
	pack   string
	offset uint32
}

// place is where the nth chunk lies.
func (c *contents) place(n uint32) place {
	return place{c.packs[c.chunks[n].pack], c.chunks[n].offset}
}

// from is the index of the first extent that ends after a sector.
func (c *contents) from(sector uint64) int {
	i, _ := slices.BinarySearchFunc(c.extents, sector, func(e extent, s uint64) int {
		if e.end() <= s {
			return -1
		}
		return cmp.Compare(1, 0)
	})
	return i
}

// ordered reports whether extents ascend, and nothing refers to what is not there.
func (c *contents) ordered() bool {
	at := uint64(0)
	for _, e := range c.extents {
		if e.sector < at || e.sectors == 0 || e.end() < e.sector || int(e.chunk) >= len(c.chunks) {
			return false
		}
		at = e.end()
	}
	return !slices.ContainsFunc(c.chunks, func(l location) bool { return int(l.pack) >= len(c.packs) })
}

// within reports whether all extents are between two sectors, and parts of chunks.
func (c *contents) within(begin, end uint64) bool {
	return !slices.ContainsFunc(c.extents, func(e extent) bool {
		return e.sector < begin || e.end() > end || uint64(e.skip)+uint64(e.sectors) > chunkSectors
	})
}

// builder puts contents together. Each chunk and each pack is in them once, in the order in
// which extents need them: equal extents of equal chunks give equal contents.
type builder struct {
	contents
	packed map[string]uint32
	placed map[place]uint32
}

func newBuilder() *builder {
	return &builder{packed: map[string]uint32{}, placed: map[place]uint32{}}
}

// add adds an extent of other contents.
func (b *builder) add(from *contents, e extent) {
	at := from.place(e.chunk)
	n, ok := b.placed[at]
	if !ok {
		n = uint32(len(b.chunks))
		b.placed[at] = n
		l := from.chunks[e.chunk]
		l.pack = b.pack(at.pack)
		b.chunks = append(b.chunks, l)
	}
	e.chunk = n
	b.extents = append(b.extents, e)
}

// pack returns the index of a pack.
func (b *builder) pack(key string) uint32 {
	n, ok := b.packed[key]
	if !ok {
		n = uint32(len(b.packs))
		b.packed[key] = n
		b.packs = append(b.packs, key)
	}
	return n
}

// only returns some extents, and what they need.
func (c *contents) only(extents []extent) contents {
	b := newBuilder()
	for _, e := range extents {
		b.add(c, e)
	}
	return b.contents
}

const (
	locationSize = 32 + 3*4
	extentSize   = 8 + 3*4
)

// append appends contents as they are stored.
func (c *contents) append(p []byte) []byte {
	packs, _ := json.Marshal(c.packs) // strings: it never fails
	p = le.AppendUint32(appendBytes(p, packs), uint32(len(c.chunks)))
	for _, l := range c.chunks {
		p = append(p, l.id[:]...)
		p = le.AppendUint32(le.AppendUint32(le.AppendUint32(p, l.pack), l.offset), l.length)
	}
	p = le.AppendUint32(p, uint32(len(c.extents)))
	for _, e := range c.extents {
		p = le.AppendUint64(p, e.sector)
		p = le.AppendUint32(le.AppendUint32(le.AppendUint32(p, e.sectors), e.chunk), e.skip)
	}
	return p
}

// read reads what append has made, to the end.
func (c *contents) read(r *fields) error {
	if err := json.Unmarshal(r.bytes(uint64(r.u32())), &c.packs); err != nil {
		return err
	}
	c.chunks = make([]location, r.count(locationSize))
	for i := range c.chunks {
		l := &c.chunks[i]
		copy(l.id[:], r.bytes(32))
		l.pack, l.offset, l.length = r.u32(), r.u32(), r.u32()
	}
	c.extents = make([]extent, r.count(extentSize))
	for i := range c.extents {
		c.extents[i] = extent{r.u64(), r.u32(), r.u32(), r.u32()}
	}
	if r.short || len(r.b) > 0 {
		return errBlob
	}
	return nil
}

// appendBytes appends bytes with their length.
func appendBytes(p, q []byte) []byte {
	return append(le.AppendUint32(p, uint32(len(q))), q...)
}

// fields takes numbers apart.
type fields struct {
	b     []byte
	short bool
}

func (r *fields) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.short, r.b = true, nil
		return make([]byte, min(n, 64))
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *fields) u32() uint32 { return le.Uint32(r.bytes(4)) }
func (r *fields) u64() uint64 { return le.Uint64(r.bytes(8)) }

// count is the number of entries of a size, which have to be there.
func (r *fields) count(size int) int {
	n := int(r.u32())
	if n > len(r.b)/size {
		r.short, n = true, 0
	}
	return n
}
