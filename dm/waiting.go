package dm

import (
	"math/bits"

	"udm/blk"
)

// waiting are the bios that wait for a table, a resume or their turn, in order,
// and an index of what they touch. The zero value is empty.
//
// A bio of n sectors is filed in blocks of the smallest power of two that is not
// below n, so in one or two of them. Blocks that are shared count as an overlap,
// and so does what would touch very many: an overlap that is none costs a turn.
type waiting struct {
	list     blk.List
	barriers int               // how many are barriers
	blocks   map[block]touched // only what is touched
	sizes    [65]int           // how many bios are filed in blocks of each size
}

// block is a power of two of sectors, aligned to its size.
type block struct {
	shift  uint8
	number uint64
}

// touched is how many bios touch a block, and how many of them change it.
type touched struct{ all, changes int }

// lookups is how many blocks of one size are looked at for one bio.
const lookups = 64

func (w *waiting) empty() bool { return w.list.Empty() }

func (w *waiting) push(b *blk.Bio)     { w.file(b, 1); w.list.Push(b) }
func (w *waiting) pushHead(b *blk.Bio) { w.file(b, 1); w.list.PushHead(b) }

func (w *waiting) pop() *blk.Bio {
	b := w.list.Pop()
	if b != nil {
		w.file(b, -1)
	}
	return b
}

// file adds b to the index, or takes it out.
func (w *waiting) file(b *blk.Bio, n int) {
	if b.Flags&blk.Barrier != 0 {
		w.barriers += n
	}
	if b.Sectors == 0 {
		return
	}
	if w.blocks == nil {
		w.blocks = make(map[block]touched)
	}
	shift := uint8(bits.Len64(b.Sectors - 1))
	w.sizes[shift] += n
	first, last := b.Sector>>shift, (b.EndSector()-1)>>shift
	for i := first; ; i = last {
		w.touch(block{shift, i}, n, b.Op.IsWrite())
		if i == last {
			return
		}
	}
}

func (w *waiting) touch(at block, n int, changes bool) {
	t := w.blocks[at]
	t.all += n
	if changes {
		t.changes += n
	}
	if t.all == 0 {
		delete(w.blocks, at)
		return
	}
	w.blocks[at] = t
}

// overlaps reports whether b touches what a waiting bio changes, or changes what
// one touches.
func (w *waiting) overlaps(b *blk.Bio) bool {
	if w.list.Empty() || b.Sectors == 0 {
		return false
	}
	for shift, n := range w.sizes {
		if n > 0 && w.overlapsAt(b, uint8(shift)) {
			return true
		}
	}
	return false
}

func (w *waiting) overlapsAt(b *blk.Bio, shift uint8) bool {
	first, last := b.Sector>>shift, (b.EndSector()-1)>>shift
	if last-first >= lookups {
		return true
	}
	for i := first; i <= last; i++ {
		if t := w.blocks[block{shift, i}]; t.changes > 0 || t.all > 0 && b.Op.IsWrite() {
			return true
		}
	}
	return false
}
