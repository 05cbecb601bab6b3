package checkdev

import (
	"hash/crc32"

	"udm/blk"
	"udm/internal/invariants"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// watch returns a stand-in for b that finds out a device which changes the data
// of a write or completes twice, and a submitter who changes the data of a write
// under way or, with spoil, uses that of a failed read. Only with invariants on: it
// allocates.
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

// sum is a checksum of the data of a write that may not change, 0 for all else.
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
