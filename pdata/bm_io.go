package pdata

import (
	"cmp"
	"slices"
	"sync/atomic"

	"udm/blk"
	"udm/env"
)

const (
	maxRun      = 64 // blocks in one write
	maxInFlight = 32 // writes in flight at once
)

// load reads a block and checks it.
func (bm *BlockManager) load(nr uint64, k *Kind, hidden bool) (*page, error) {
	p := &page{nr: nr, data: new([BlockSize]byte), kind: k, hidden: hidden}
	p.used.Store(1)
	if err := bm.ReadRaw(nr, p.data[:]); err != nil {
		return nil, err
	}
	if reason := k.Verify(p.data[:], nr); reason != "" {
		return nil, corrupt(nr, "%s", reason)
	}
	return p, nil
}

// ReadRaw reads a block from the device into buf without checking it.
func (bm *BlockManager) ReadRaw(nr uint64, buf []byte) error {
	if n := bm.Blocks(); nr >= n {
		return corrupt(nr, "beyond the metadata device of %d blocks", n)
	}
	return blk.ReadSectors(bm.env, bm.dev, buf[:BlockSize], nr*BlockSectors)
}

// writeBack writes every dirty page. It does not flush.
func (bm *BlockManager) writeBack() error {
	ps := bm.takeDirty()
	err := bm.writePages(ps)
	bm.written(ps, err)
	return err
}

// takeDirty returns the dirty pages in the order of their blocks, ready to be
// written. They stay in the cache until written is called.
func (bm *BlockManager) takeDirty() (ps []*page) {
	for _, nr := range bm.dirty {
		if p := bm.slot(nr).cur; p != nil && p.dirty {
			ps = append(ps, p)
			p.dirty, p.going = false, true
		}
	}
	slices.SortFunc(ps, func(a, b *page) int { return cmp.Compare(a.nr, b.nr) })
	for _, p := range ps {
		p.kind.Seal(p.data[:], p.nr)
	}
	bm.dirty = bm.dirty[:0]
	return ps
}

// written tells the outcome of writing pages that takeDirty returned.
func (bm *BlockManager) written(ps []*page, err error) {
	for _, p := range ps {
		p.going = false
		if err != nil {
			bm.markDirty(p)
		}
	}
}

// writePages writes sorted pages and waits for all writes. Adjacent pages share a
// write, and several writes are in flight at a time. It may run beside the owner.
func (bm *BlockManager) writePages(ps []*page) error {
	if err := bm.flushRead(); err != nil {
		return err
	}
	w := NewWriter(bm.env, bm.dev)
	for len(ps) > 0 {
		n := 1
		for n < len(ps) && n < w.run && ps[n].nr == ps[0].nr+uint64(n) {
			n++
		}
		bufs := make([][]byte, n)
		for i, p := range ps[:n] {
			bufs[i] = p.data[:]
		}
		w.Write(ps[0].nr, bufs)
		ps = ps[n:]
	}
	return w.Wait()
}

// flushRead makes the superblock that was read durable. It may run beside the owner.
func (bm *BlockManager) flushRead() error {
	if !bm.doubtful.Load() {
		return nil
	}
	err := blk.FlushDevice(bm.env, bm.dev)
	if err == nil {
		bm.doubtful.Store(false)
	}
	return err
}

// Writer writes blocks in parallel, with a bounded number of writes in flight.
type Writer struct {
	dev      blk.Device
	wait     env.Wait
	run      int          // most blocks in one write
	inFlight atomic.Int32 // writes in flight
	status   atomic.Uint32
}

// NewWriter makes a writer to dev.
func NewWriter(e env.Env, dev blk.Device) *Writer {
	w := &Writer{dev: dev, wait: e.NewWait(), run: maxRun}
	if m := dev.Limits().MaxSectors; m != 0 {
		w.run = max(1, min(w.run, int(m/BlockSectors)))
	}
	return w
}

// Write starts to write at most Run blocks, each in a slice of its own, beginning
// at block nr. The slices belong to the writer until Wait.
func (w *Writer) Write(nr uint64, bufs [][]byte) {
	w.wait.Until(func() bool { return w.inFlight.Load() < maxInFlight })
	w.inFlight.Add(1)
	b := &blk.Bio{Op: blk.Write, Sector: nr * BlockSectors, End: func(b *blk.Bio) {
		w.status.CompareAndSwap(0, uint32(b.Status()))
		w.inFlight.Add(-1)
		w.wait.Wake()
	}}
	b.SetBufs(bufs, uint64(len(bufs))*BlockSectors)
	w.dev.Submit(b)
}

// Run is the largest number of blocks in one Write.
func (w *Writer) Run() int { return w.run }

// Wait waits for all writes and returns the first error.
func (w *Writer) Wait() error {
	w.wait.Until(func() bool { return w.inFlight.Load() == 0 })
	return blk.Status(w.status.Load()).Err()
}

// WriteSuper seals a superblock and writes it durably. The flush before the write
// covers everything written earlier, the flush after it the superblock itself.
func (bm *BlockManager) WriteSuper(nr uint64, k *Kind, p []byte) error {
	if err := blk.FlushDevice(bm.env, bm.dev); err != nil {
		return err
	}
	if err := bm.writeOne(nr, k, p); err != nil {
		return err
	}
	return blk.FlushDevice(bm.env, bm.dev)
}

func (bm *BlockManager) writeOne(nr uint64, k *Kind, p []byte) error {
	k.Seal(p, nr)
	return blk.WriteSectors(bm.env, bm.dev, p, nr*BlockSectors, 0)
}
