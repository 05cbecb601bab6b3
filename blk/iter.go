package blk

import "iter"

// CloneFrom makes b the same request as src over the same buffers, without its End,
// Private and state. It does not allocate.
func (b *Bio) CloneFrom(src *Bio) {
	b.Op, b.Flags, b.Sector, b.Sectors = src.Op, src.Flags, src.Sector, src.Sectors
	b.Bufs, b.Tags, b.idx, b.done = src.Bufs, src.Tags, src.idx, src.done
	b.Rearm()
}

// Advance drops the first n sectors of the bio, n at most Sectors.
func (b *Bio) Advance(n uint64) {
	b.Sector += n
	b.Sectors -= n
	if b.Op.HasData() {
		b.skip(n * SectorSize)
	}
}

// Rewind undoes Advance: the bio starts n sectors earlier again. It must have been
// advanced by at least n sectors. (The kernel's dm-io-rewind.c.)
func (b *Bio) Rewind(n uint64) {
	b.Sector -= n
	b.Sectors += n
	if b.Op.HasData() {
		b.unskip(n * SectorSize)
	}
}

func (b *Bio) skip(bytes uint64) {
	for bytes > 0 {
		left := uint64(len(b.Bufs[b.idx])) - b.done
		if bytes < left {
			b.done += bytes
			return
		}
		bytes -= left
		b.idx++
		b.done = 0
	}
}

func (b *Bio) unskip(bytes uint64) {
	for bytes > b.done {
		bytes -= b.done
		b.idx--
		b.done = uint64(len(b.Bufs[b.idx]))
	}
	b.done -= bytes
}

// Bytes is the length of the data in bytes.
func (b *Bio) Bytes() uint64 { return b.Sectors * SectorSize }

// BlockTags returns the tags of the data, given the bytes of a block and of its tag. Without
// Tags it returns nil.
func (b *Bio) BlockTags(block, tag uint64) []byte {
	if b.Tags == nil {
		return nil
	}
	from := b.done
	for _, p := range b.Bufs[:b.idx] {
		from += uint64(len(p))
	}
	return b.Tags[from/block*tag:][:b.Bytes()/block*tag]
}

// Contiguous returns the data as one slice if it lies in one buffer, the common case.
// Segments handles the general case.
func (b *Bio) Contiguous() ([]byte, bool) {
	if int(b.idx) >= len(b.Bufs) {
		return nil, b.Sectors == 0
	}
	p := b.Bufs[b.idx][b.done:]
	n := b.Bytes()
	if uint64(len(p)) < n {
		return nil, false
	}
	return p[:n:n], true
}

// Segments yields the data, slice by slice, Sectors*512 bytes in all. No slice
// is empty.
func (b *Bio) Segments() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		left, done := b.Bytes(), b.done
		for i := b.idx; left > 0; i++ {
			p := b.Bufs[i][done:]
			done = 0
			if uint64(len(p)) > left {
				p = p[:left:left]
			}
			left -= uint64(len(p))
			if len(p) > 0 && !yield(p) {
				return
			}
		}
	}
}

// DataBytes is the number of bytes in the buffers from the bio's position on: at
// least Bytes() in a valid bio.
func (b *Bio) DataBytes() uint64 {
	var n uint64
	for i := int(b.idx); i < len(b.Bufs); i++ {
		n += uint64(len(b.Bufs[i]))
	}
	return n - min(n, b.done)
}

// CopyOut copies the data of a write to p, which holds Bytes() bytes.
func (b *Bio) CopyOut(p []byte) {
	for s := range b.Segments() {
		p = p[copy(p, s):]
	}
}

// CopyIn copies p to the buffers of a read.
func (b *Bio) CopyIn(p []byte) {
	for s := range b.Segments() {
		p = p[copy(s, p):]
	}
}

// Zero clears the buffers of a read.
func (b *Bio) Zero() {
	for s := range b.Segments() {
		clear(s)
	}
}

// Position is a position in a bio, for Seek.
type Position struct {
	Sector uint64
	idx    int32
	done   uint64
}

// Position returns the present start of the bio.
func (b *Bio) Position() Position { return Position{b.Sector, b.idx, b.done} }

// Seek makes the bio start at p, a position of this bio or of one that it was cloned
// from, with the given length.
func (b *Bio) Seek(p Position, sectors uint64) {
	b.Sector, b.Sectors, b.idx, b.done = p.Sector, sectors, p.idx, p.done
}
