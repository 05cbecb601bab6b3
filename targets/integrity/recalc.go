package integrity

import "udm/blk"

const (
	recalcSectors = 2048 // in one step
	recalcSteps   = 16   // between two writes of the superblock
)

// recalculate computes the tags of existing data, recalcSteps steps at a time. It runs on the
// queue writer, so that no blocks are written back meanwhile.
func (g *integrity) recalculate() {
	t := newTagger(g.newHash, g.sb)
	data := make([]byte, recalcSectors*blk.SectorSize)
	for range recalcSteps {
		s, ok := g.nextRecalc()
		if !ok {
			break
		}
		if err := g.recalculateSpan(t, data, s); err != nil {
			g.target.Log().Error("integrity: cannot recalculate tags; recalculation continues when the device is resumed", "error", err)
			return
		}
	}
	err := g.flushDevices()
	if err == nil {
		err = g.writeSuperblock()
	}
	if err != nil {
		g.target.Log().Error("integrity: cannot write recalculated tags; recalculation continues when the device is resumed", "error", err)
		return
	}
	if _, ok := g.nextRecalc(); ok {
		g.writer.Queue(&g.recalcWork)
	} else if g.bitmap != nil && !g.isStopped() {
		g.committer.Queue(&g.bitmapWork)
	}
}

// nextRecalc returns the next span to recalculate, or false if recalculation is complete or
// stopped.
func (g *integrity) nextRecalc() (s span, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bitmap != nil && g.sb.RecalcSector < g.layout.provided {
		g.sb.RecalcSector = g.bitmap.nextMissing(g.sb.RecalcSector).sector
	}
	at := g.sb.RecalcSector
	if g.stopped || g.sb.Flags&flagRecalculating == 0 || at >= g.layout.provided {
		return s, false
	}
	s = span{at, min(recalcSectors, g.layout.areaEnd(at)-at, g.layout.provided-at)}
	if g.bitmap != nil {
		s.sectors = min(s.sectors, g.bitmap.nextMissing(at).sectors)
	}
	return s, true
}

func (g *integrity) isStopped() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stopped
}

func (g *integrity) recalculateSpan(t *tagger, data []byte, s span) error {
	g.acquire(s, nil)
	defer g.release(s)
	data = data[:s.sectors*blk.SectorSize]
	if err := blk.ReadSectors(g.env, g.dev, data, g.dataSector(s.sector)); err != nil {
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
	if g.sb.RecalcSector == s.sector { // else a write failed meanwhile
		g.sb.RecalcSector = s.end()
		if g.bitmap != nil {
			g.bitmap.computed(s)
		}
	}
	g.mu.Unlock()
	return nil
}
