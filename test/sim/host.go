package sim

import (
	"errors"
	"math/rand/v2"
	"slices"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
)

// host is the file system that the disks, which are sparse files there, and the files
// of the daemon lie on. It is full from time to time, for a while. Then a write to a
// page that has no space yet finds none, after what did find some was written, and no
// file can be made or written, each of which takes a page.
type host struct {
	free   int  // pages
	filled bool // it has little space; else it has enough
	long   bool // longer than anybody waits, at times: writes fail
}

const (
	page  = 8 // sectors
	ample = 1 << 30
)

func newHost(r *rand.Rand) *host { return &host{free: ample, long: r.IntN(4) == 0} }

// fill leaves little space for a while.
func (w *harness) fill(r *rand.Rand) {
	h := w.host
	few, lasts := r.IntN(24), ms(r, 4000)
	if h.long && r.IntN(4) == 0 {
		lasts += 70 * time.Second
	}
	if h.filled {
		return
	}
	h.filled, h.free = true, few
	w.note("the host has %d pages for %v", few, lasts)
	w.sim.AfterFunc(lasts, func() {
		w.note("the host has space")
		h.empty()
	})
}

func (h *host) empty() { h.filled, h.free = false, ample }

// has takes n pages, unless there are not as many.
func (h *host) has(n int) bool {
	switch {
	case h == nil:
		return true
	case h.free < n:
		return false
	}
	h.free -= n
	return true
}

// whole gives a disk all its space.
func (d *disk) whole() bool {
	n := int((d.mem.Limits().Size + page - 1) / page)
	if !d.host.has(n) {
		return false
	}
	d.taken = slices.Repeat([]bool{true}, n)
	return true
}

// allocate takes the space of b, or gives it back. It returns how many of b's sectors
// have space.
func (d *disk) allocate(b *blk.Bio) (sectors uint64) {
	begin, end := b.Sector, b.Sector+b.Sectors
	switch {
	case d.host == nil:
	case b.Op == blk.Discard, b.Op == blk.WriteZeroes && b.Flags&blk.NoUnmap == 0:
		for p := (begin + page - 1) / page; (p+1)*page <= end; p++ {
			d.take(p, false)
		}
	case b.Op == blk.Write, b.Op == blk.WriteZeroes:
		for p := begin / page; p*page < end; p++ {
			if !d.take(p, true) {
				return max(p*page, begin) - begin
			}
		}
	}
	return b.Sectors
}

// take takes page p, or gives it back, and reports whether there was space.
func (d *disk) take(p uint64, on bool) bool {
	if need := p + 1; need > uint64(len(d.taken)) {
		d.taken = slices.Grow(d.taken, int(need)-len(d.taken))[:need]
	}
	switch {
	case d.taken[p] == on:
	case on && !d.host.has(1):
		return false
	case !on:
		d.host.free++
	}
	d.taken[p] = on
	return true
}

// trying carries out a command until it finds space on the host.
func (w *harness) trying(f func() error) error {
	for {
		err := f()
		if w.host == nil || !lacking(err) {
			return err
		}
		w.note("%v", err)
		w.sleep(50 * time.Millisecond)
	}
}

func lacking(err error) bool {
	return errors.Is(err, blk.NoSpace) || errors.Is(err, syscall.ENOSPC) || dm.ErrnoOf(err) == syscall.ENOSPC
}

// mayLack reports whether bios of v's users may find no space: where nothing waits for
// it, or not for so long.
func (w *harness) mayLack(v *volume) bool {
	sc, ok := w.sc.(interface{ impatient(*volume) bool })
	return w.host != nil && (w.host.long || ok && sc.impatient(v))
}
