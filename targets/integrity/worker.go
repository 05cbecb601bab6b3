package integrity

import (
	"bytes"

	"udm/blk"
	"udm/dm"
)

// discarded is the value of all bytes in the tag of a discarded block.
const discarded = 0xf6

// worker processes one clone at a time.
type worker struct {
	*integrity
	tagger *tagger // nil: the clones carry their tags
	buffer []byte  // data of a clone
	tagBuf []byte  // tags of a clone
	images []image // of a clone's blocks in the journal; zero if a block is not there
}

func newWorker(g *integrity) *worker {
	n := int(g.maxIOSectors >> g.layout.logBlock)
	return &worker{integrity: g, tagger: newTagger(g.newHash, g.sb), buffer: make([]byte, g.maxIOSectors*blk.SectorSize), tagBuf: make([]byte, n*g.layout.tagSize), images: make([]image, n)}
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

// tagBytes returns the buffer for the tags of a span.
func (w *worker) tagBytes(s span) []byte {
	return w.tagBuf[:int(s.sectors>>w.layout.logBlock)*w.layout.tagSize]
}

// read reads and verifies a clone. Blocks in the journal are copied from there.
func (w *worker) read(c *dm.Clone, s span) blk.Status {
	tagged := false // all blocks have tags
	inJournal := 0
	w.acquire(s, func() bool {
		tagged = w.tagged(s)
		inJournal = w.findImages(s)
		return true
	})
	defer w.release(s)
	if inJournal < int(s.sectors>>w.layout.logBlock) {
		if st := w.readClone(c, s); st != blk.OK {
			return st
		}
		if err := w.tags.read(w.tagBytes(s), w.layout.tag(s.sector)); err != nil {
			return blk.StatusOf(err)
		}
	}
	payload := w.payload(c)
	for i := range int(s.sectors >> w.layout.logBlock) {
		sector, tag := s.sector+uint64(i)<<w.layout.logBlock, w.tagBuf[i*w.layout.tagSize:][:w.layout.tagSize]
		c.Sectors = w.layout.blockSectors
		if im := w.images[i]; im.data != nil {
			im.unpack(w.buffer)
			c.CopyIn(w.buffer[:w.layout.blockSectors*blk.SectorSize])
			copy(tag, im.tag(w.layout.tagSize))
		} else if w.tagger != nil && (tagged || w.hasTag(sector)) && !w.verify(c, sector, tag) {
			return blk.IOErr
		}
		c.Advance(w.layout.blockSectors)
	}
	copy(payload, w.tagBytes(s))
	return blk.OK
}

// payload returns the tags that a clone carries, or nil.
func (w *worker) payload(c *dm.Clone) []byte {
	return c.BlockTags(w.layout.blockSectors*blk.SectorSize, uint64(w.layout.tagSize))
}

// hasTag reports whether the tag of a block was computed. The caller owns a span with it.
func (w *worker) hasTag(sector uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tagged(span{sector, w.layout.blockSectors})
}

// findImages sets w.images for a span, and returns the number of blocks in the journal.
// Called with mu held.
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

// readClone reads from disk into the buffers of a clone.
func (w *worker) readClone(c *dm.Clone, s span) blk.Status {
	b := &blk.Bio{}
	b.CloneFrom(&c.Bio)
	b.Sector = w.dataSector(s.sector)
	return blk.Do(w.env, w.dev, b)
}

// verify reports whether a block, the data of c, matches its tag. If not, it reads the block
// again into w.buffer, because a client that shares its buffers with the server may have
// changed them, and copies it to c if it matches then.
func (w *worker) verify(c *dm.Clone, sector uint64, tag []byte) bool {
	p, whole := c.Contiguous()
	block := w.buffer[:w.layout.blockSectors*blk.SectorSize]
	if !whole {
		c.CopyOut(block)
		p = block
	}
	if bytes.Equal(w.tagger.tag(sector, p), tag) || w.line.AllowDiscards && isDiscarded(tag) {
		return true
	}
	if blk.ReadSectors(w.env, w.dev, block, w.dataSector(sector)) == nil && bytes.Equal(w.tagger.tag(sector, block), tag) {
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

// write journals a clone, or writes it directly with its tags, in mode B after marking it. It
// copies the data first, so that the tags match what is written even if the client changes
// its buffers.
func (w *worker) write(c *dm.Clone, s span) {
	data := w.buffer[:s.sectors*blk.SectorSize]
	c.CopyOut(data)
	if w.tagger != nil {
		w.computeTags(data, s)
	} else {
		clear(w.tagBytes(s))
		copy(w.tagBytes(s), w.payload(c))
	}
	st := blk.OK
	if w.journal != nil {
		st = w.journal.add(s, data, w.tagBytes(s))
	} else {
		w.acquire(s, nil)
		st = w.writeMarked(s, func() error { return w.writeDirect(data, s) })
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

// writeMarked calls write for an acquired span; in mode B, it makes the bits of the span durable
// first.
func (w *worker) writeMarked(s span, write func() error) blk.Status {
	if w.bitmap == nil {
		return blk.StatusOf(write())
	}
	err := w.bitmap.mark(s)
	if err == nil {
		if err = write(); err != nil {
			w.bitmap.doubt(s)
		}
	}
	return blk.StatusOf(err)
}

func (w *worker) writeDirect(data []byte, s span) error {
	err := blk.WriteSectors(w.env, w.dev, data, w.dataSector(s.sector), 0)
	if err == nil {
		err = w.tags.write(w.tagBytes(s), w.layout.tag(s.sector))
	}
	return err
}

// discard marks the tags as discarded, makes that durable, and then discards the data: no
// power cut leaves a discarded block with the tag of its old data.
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
	return w.writeMarked(s, func() error { return w.discardDirect(s) })
}

func (w *worker) discardDirect(s span) error {
	err := w.eachArea(s, func(at, n uint64) error {
		return w.tags.fill(discarded, int(n>>w.layout.logBlock)*w.layout.tagSize, w.layout.tag(at))
	})
	if err == nil {
		err = w.flushDevices()
	}
	if err == nil {
		err = w.eachArea(s, func(at, n uint64) error { return blk.DiscardSectors(w.env, w.dev, w.dataSector(at), n) })
	}
	return err
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
