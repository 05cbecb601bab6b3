package checkdev

import (
	"hash/crc32"

	"udm/blk"
	"udm/internal/invariants"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// watch returns a substitute for b that detects a device that changes the data of
// a write or completes it twice, and a submitter that changes the data of a write
// in flight. With spoil it overwrites the data of a failed read. It allocates, so
// it is used only with invariants on.
func watch(b *blk.Bio, spoil bool) *blk.Bio {
	w := &blk.Bio{}
	w.CloneFrom(b)
	before := sum(b)
	w.End = func(w *blk.Bio) {
		invariants.Check(sum(b) == before, "data of %v changed while it was under way", b)
		if spoil && b.Op == blk.Read && w.Status() != blk.OK {
			mangle(b)
		}
		b.Complete(w.Status())
	}
	return w
}

// sum is a checksum of the data of a write if that must not change, otherwise 0.
func sum(b *blk.Bio) (c uint32) {
	if b.Op == blk.Write && b.Flags&blk.Unstable == 0 {
		for p := range b.Segments() {
			c = crc32.Update(c, castagnoli, p)
		}
	}
	return c
}

func mangle(b *blk.Bio) {
	for p := range b.Segments() {
		for i := range p {
			p[i] = 0xdb
		}
	}
}
