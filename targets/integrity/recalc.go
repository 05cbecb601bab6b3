package integrity

import "udm/blk"

const (
	recalcSectors = 2048 // at a time
	recalcSteps   = 16   // between two writes of the superblock
)

// recalculate computes tags of what is on disk, a few steps each time. It is a work of
// the queue writer, so that no block is written to its place meanwhile.
func (g *integrity) recalculate() {
	t := newTagger(g.newHash(), g.sb)
	data := make([]byte, recalcSectors*blk.SectorSize)
	for range recalcSteps {
		s, ok := g.nextRecalc()
		if !ok {
			break
		}
		if err := g.recalculateSpan(t, data, s); err != nil {
			g.target.Log().Error("integrity: tags cannot be computed; it goes on when the device is resumed", "error", err)
			return
		}
	}
	err := g.flushPlaces()
	if err == nil {
		err = g.writeSuperblock()
	}
	if err != nil {
		g.target.Log().Error("integrity: computed tags cannot be written; it goes on when the device is resumed", "error", err)
		return
	}
	if _, ok := g.nextRecalc(); ok {
		g.writer.Queue(&g.recalcWork)
	}
}

// nextRecalc is the span whose tags are to be computed next.
func (g *integrity) nextRecalc() (s span, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.sb.RecalcSector
	if g.stopped || g.sb.Flags&flagRecalculating == 0 || at >= g.layout.provided {
		return s, false
	}
	return span{at, min(recalcSectors, g.layout.areaEnd(at)-at, g.layout.provided-at)}, true
}

func (g *integrity) recalculateSpan(t *tagger, data []byte, s span) error {
	g.acquire(s, nil)
	defer g.release(s)
	data = data[:s.sectors*blk.SectorSize]
	if err := blk.ReadSectors(g.env, g.dev, data, g.place(s.sector)); err != nil {
		return err
	}
	size := int(g.layout.blockSectors * blk.SectorSize)
	tags := make([]byte, 0, len(data)/size*g.layout.tagSize)
	for at := s.sector; len(data) > 0; data, at = data[size:], at+g.layout.blockSectors {
		tags = append(tags, t.tag(at, data[:size])...)
	}
	if err := g.tags.write(tags, g.layout.tag(s.sector)); err != nil {
		return err
	}
	g.mu.Lock()
	g.sb.RecalcSector = s.end()
	g.mu.Unlock()
	return nil
}
