package integrity

import (
	"bytes"

	"udm/blk"
	"udm/dm"
)

// discarded is what the tags of discarded blocks consist of.
const discarded = 0xf6

// worker carries out clones, one after the other.
type worker struct {
	*integrity
	tagger *tagger
	buffer []byte  // data of a piece
	tagBuf []byte  // tags of a piece
	images []image // blocks of a piece that the journal has
}

func newWorker(g *integrity) *worker {
	n := int(g.pieceSectors >> g.layout.logBlock)
	return &worker{integrity: g, tagger: newTagger(g.newHash(), g.sb), buffer: make([]byte, g.pieceSectors*blk.SectorSize), tagBuf: make([]byte, n*g.layout.tagSize), images: make([]image, n)}
}

func (w *worker) work(c *dm.Clone) {
	s := span{c.Offset(), c.Sectors}
	switch c.Op {
	case blk.Read:
		c.Complete(w.read(c, s))
	case blk.Discard:
		c.Complete(w.discard(s))
	default:
		w.write(c, s)
	}
}

// tagBytes is the tags of a span.
func (w *worker) tagBytes(s span) []byte {
	return w.tagBuf[:int(s.sectors>>w.layout.logBlock)*w.layout.tagSize]
}

// read reads a piece and checks it. Blocks that the journal has are taken from there.
func (w *worker) read(c *dm.Clone, s span) blk.Status {
	unchecked := uint64(0) // the first sector whose tag is not to be looked at
	inJournal := 0
	w.acquire(s, func() bool {
		unchecked = w.uncheckedFrom()
		inJournal = w.findImages(s)
		return true
	})
	defer w.release(s)
	if inJournal < int(s.sectors>>w.layout.logBlock) {
		if st := w.readClone(c, s); st != blk.OK {
			return st
		}
		if err := w.tags.read(w.tagBytes(s), w.layout.tag(s.sector)); err != nil {
			return blk.IOErr
		}
	}
	for i := range int(s.sectors >> w.layout.logBlock) {
		sector := s.sector + uint64(i)<<w.layout.logBlock
		c.Sectors = w.layout.blockSectors
		if im := w.images[i]; im.data != nil {
			im.unpack(w.buffer)
			c.CopyIn(w.buffer[:w.layout.blockSectors*blk.SectorSize])
		} else if sector < unchecked && !w.right(c, sector, w.tagBuf[i*w.layout.tagSize:][:w.layout.tagSize]) {
			return blk.IOErr
		}
		c.Advance(w.layout.blockSectors)
	}
	return blk.OK
}

// findImages looks up which blocks of a span the journal has. Called with mu held.
func (w *worker) findImages(s span) (n int) {
	clear(w.images)
	if w.journal == nil || len(w.journal.where) == 0 {
		return 0
	}
	for i := range int(s.sectors >> w.layout.logBlock) {
		if w.images[i] = w.journal.find(s.sector + uint64(i)<<w.layout.logBlock); w.images[i].data != nil {
			n++
		}
	}
	return n
}

// readClone reads from disk into a clone's buffers.
func (w *worker) readClone(c *dm.Clone, s span) blk.Status {
	b := &blk.Bio{}
	b.CloneFrom(&c.Bio)
	b.Sector = w.place(s.sector)
	return blk.Do(w.env, w.dev, b)
}

// right reports whether a block that is the data of c has its tag. If not it reads it
// once more into its own memory: what a client shares with us, he may have changed.
func (w *worker) right(c *dm.Clone, sector uint64, tag []byte) bool {
	p, whole := c.Contiguous()
	block := w.buffer[:w.layout.blockSectors*blk.SectorSize]
	if !whole {
		c.CopyOut(block)
		p = block
	}
	if bytes.Equal(w.tagger.tag(sector, p), tag) || w.line.AllowDiscards && isDiscarded(tag) {
		return true
	}
	if blk.ReadSectors(w.env, w.dev, block, w.place(sector)) == nil && bytes.Equal(w.tagger.tag(sector, block), tag) {
		c.CopyIn(block)
		return true
	}
	w.mismatch(sector)
	return false
}

func isDiscarded(tag []byte) bool {
	for _, b := range tag {
		if b != discarded {
			return false
		}
	}
	return true
}

// write journals a piece, or writes it and its tags. The data are copied first, so that
// tags are of what is written.
func (w *worker) write(c *dm.Clone, s span) {
	data := w.buffer[:s.sectors*blk.SectorSize]
	c.CopyOut(data)
	w.computeTags(data, s)
	st := blk.OK
	if w.journal != nil {
		st = w.journal.add(s, data, w.tagBytes(s))
	} else {
		w.acquire(s, nil)
		st = w.writeDirect(data, s)
		w.release(s)
	}
	if st == blk.OK && c.Flags&blk.FUA != 0 {
		w.flushLater(c)
		return
	}
	c.Complete(st)
}

func (w *worker) computeTags(data []byte, s span) {
	size := int(w.layout.blockSectors * blk.SectorSize)
	for i := range int(s.sectors >> w.layout.logBlock) {
		copy(w.tagBuf[i*w.layout.tagSize:], w.tagger.tag(s.sector+uint64(i)<<w.layout.logBlock, data[i*size:(i+1)*size]))
	}
}

func (w *worker) writeDirect(data []byte, s span) blk.Status {
	err := blk.WriteSectors(w.env, w.dev, data, w.place(s.sector), 0)
	if err == nil {
		err = w.tags.write(w.tagBytes(s), w.layout.tag(s.sector))
	}
	return blk.StatusOf(err)
}

// discard marks the tags, and discards below when that is durable: no power cut leaves
// a discarded block with the tag of what it was.
func (w *worker) discard(s span) blk.Status {
	st := blk.OK
	if w.journal != nil {
		st = w.journal.drain(s)
	} else {
		w.acquire(s, nil)
	}
	defer w.release(s)
	if st != blk.OK {
		return st
	}
	err := w.eachArea(s, func(at, n uint64) error {
		return w.tags.fill(discarded, int(n>>w.layout.logBlock)*w.layout.tagSize, w.layout.tag(at))
	})
	if err == nil {
		err = w.flushPlaces()
	}
	if err == nil {
		err = w.eachArea(s, func(at, n uint64) error { return blk.DiscardSectors(w.env, w.dev, w.place(at), n) })
	}
	return blk.StatusOf(err)
}

// eachArea calls f with the parts of a span that lie in one area each.
func (w *worker) eachArea(s span, f func(sector, sectors uint64) error) error {
	for at := s.sector; at < s.end(); {
		n := min(s.end(), w.layout.areaEnd(at)) - at
		if err := f(at, n); err != nil {
			return err
		}
		at += n
	}
	return nil
}
