package dm

import (
	"math/bits"

	"udm/blk"
)

// waiting is the queue of the bios that wait for a table, a resume or their turn,
// with an index of the sectors that they touch. The zero value is empty.
//
// A bio of n sectors is filed under one or two blocks whose size is the smallest
// power of two that is at least n. Two bios in one block count as overlapping, and so
// does a bio that touches very many blocks: a false overlap only makes a bio wait.
type waiting struct {
	list     blk.List
	n        int               // bios in list
	barriers int               // number of barriers among them
	blocks   map[block]touched // only blocks with bios
	sizes    [65]int           // number of bios filed under blocks of each size
}

// block is the range of 1<<shift sectors that begins at sector number<<shift.
type block struct {
	shift  uint8
	number uint64
}

// touched counts the bios in a block, and those that change it.
type touched struct{ all, changes int }

// lookups is the most blocks of one size that are looked up for one bio.
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

// file adds b to the index (n is 1) or removes it (n is -1).
func (w *waiting) file(b *blk.Bio, n int) {
	w.n += n
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

// overlaps reports whether b may touch sectors that a waiting bio changes, or change
// sectors that one touches.
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
