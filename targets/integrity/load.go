package integrity

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"syscall"

	"udm/blk"
	"udm/dm"
)

// load reads the superblock, or formats the device if the superblock is all zeroes, and
// computes the layout.
func (g *integrity) load() error {
	p, err := readEncoded(g.env, g.meta, g.start)
	if errors.Is(err, ErrNone) {
		err = syscall.EIO
	}
	if err != nil {
		return dm.Because(err, "Error reading superblock")
	}
	var sealErr error
	if g.line.Mode != "R" {
		if g.seal, sealErr = newSeal(g.line); g.seal.superblockDamaged(p) {
			return dm.Because(dm.Errorf(syscall.EILSEQ, "the superblock is damaged, or the key of journal_mac is wrong: it does not match its MAC"), "Error reading superblock")
		}
	}
	logBuffer := uint(bits.Len32(g.line.BufferSectors)) - 1
	fresh := string(p[:8]) != magic
	if fresh {
		if g.line.Mode != "R" && len(trimZeroes(p)) > 0 {
			return geometryError("The device is not initialized")
		}
		if err := g.newSuperblock(logBuffer); err != nil {
			return dm.Because(err, "Could not initialize superblock")
		}
	} else {
		g.sb = decodeSuperblock(p)
		if err := g.sb.checkFlags(); err != nil {
			return dm.Because(dm.Errorf(syscall.EINVAL, "%v", err), "Error reading superblock")
		}
	}
	if err := g.check(logBuffer); err != nil {
		return err
	}
	if sealErr != nil {
		return sealErr
	}
	if fresh && g.line.Mode != "R" {
		g.sb.LogBitmapBit = g.layout.bitmapBit(g.line.SectorsPerBit)
		return g.format()
	}
	return nil
}

func trimZeroes(p []byte) []byte {
	for len(p) > 0 && p[0] == 0 {
		p = p[1:]
	}
	return p
}

// newSuperblock sets g.sb to a new superblock with the parameters of the line.
func (g *integrity) newSuperblock(logBuffer uint) error {
	l := g.line
	s := &Superblock{TagSize: uint16(l.TagSize), LogBlock: uint8(bits.Len(uint(l.BlockSize/blk.SectorSize)) - 1)}
	if l.JournalMAC.Name != "" {
		s.Flags |= flagJournalMAC
	}
	if l.FixHMAC && (l.Hash != "" || l.JournalMAC.Name != "") {
		s.Flags |= flagHMAC
		binary.LittleEndian.PutUint64(s.Salt[:], g.env.Uint64())
		binary.LittleEndian.PutUint64(s.Salt[8:], g.env.Uint64())
	}
	separate := l.MetaDevice != ""
	if !separate {
		if l.FixPadding {
			s.Flags |= flagPadding
		}
		log := 15
		if l.InterleaveSectors > 0 {
			log = bits.Len32(l.InterleaveSectors) - 1
		}
		s.LogInterleave = uint8(min(max(log, minInterleave), maxInterleave))
	}
	sectors := uint64(l.JournalSectors)
	if sectors == 0 {
		sectors = min(1<<17, g.dev.Limits().Size>>7)
	}
	la := newLayout(s, separate, logBuffer)
	most := max(1, sectors/la.sectionSectors)
	s.JournalSections = uint32(most)
	la.setSections(most)
	la.provide(g.start, g.meta.Limits().Size, g.dev.Limits().Size)
	if la.provided == 0 {
		return dm.Errorf(syscall.EINVAL, "%v", errTooSmall)
	}
	if separate {
		for ; ; la.logBuffer-- {
			if la.shrinkJournal(g.start, g.meta.Limits().Size, most); la.sections > 0 {
				break
			}
			if la.logBuffer <= 3 {
				return dm.Errorf(syscall.EINVAL, "%v", errTooSmall)
			}
		}
		s.JournalSections = uint32(la.sections)
	}
	s.Provided = la.provided
	s.setVersion(separate, l.Mode)
	g.sb = s
	return nil
}

// check verifies that line, superblock and devices are consistent, and sets the layout.
func (g *integrity) check(logBuffer uint) error {
	s, l := g.sb, g.line
	separate := l.MetaDevice != ""
	switch {
	case s.Version == 0 || s.Version > maxVersion:
		return geometryError("Unknown version")
	case int(s.TagSize) != l.TagSize:
		return geometryError("Tag size doesn't match the information in superblock")
	case s.LogBlock > 3 || blk.SectorSize<<s.LogBlock != l.BlockSize:
		return geometryError("Block size doesn't match the information in superblock")
	case s.JournalSections == 0:
		return geometryError("Corrupted superblock, journal_sections is 0")
	case separate && s.LogInterleave != 0, !separate && (s.LogInterleave < minInterleave || s.LogInterleave > maxInterleave):
		return geometryError("Invalid interleave_sectors in the superblock")
	case (s.Flags&flagJournalMAC != 0) != (l.JournalMAC.Name != ""):
		return geometryError("Journal mac mismatch")
	}
	la := newLayout(s, separate, logBuffer)
	size := g.meta.Limits().Size
	la.provide(g.start, size, g.dev.Limits().Size)
	if la.provided == 0 {
		return geometryError("The device is too small")
	}
	for !la.fits(g.start, size) {
		if !separate || la.logBuffer <= 3 {
			return geometryError("The device is too small")
		}
		la.logBuffer--
	}
	if !separate {
		// Unlike the kernel, which may then overwrite data with tags, also respect the
		// interleave.
		la.logBuffer = min(la.logBuffer, uint(bits.TrailingZeros64(la.run)), la.logInterleave)
	}
	g.layout = la
	return g.checkUse()
}

// maxJournal bounds the memory and time that a superblock can demand, in sectors.
const maxJournal = 1 << 21

// checkUse verifies that the disk may be used as the line demands.
func (g *integrity) checkUse() error {
	recalculate := g.line.Recalculate || g.line.ResetRecalculate || g.sb.Flags&flagRecalculating != 0 && g.sb.RecalcSector < g.layout.provided
	switch {
	case g.line.Mode != "R" && g.layout.initial > maxJournal:
		return dm.Because(dm.Errorf(syscall.ENOMEM, "the journal is larger than 1 GiB; the superblock is probably damaged"), "Could not allocate memory for journal")
	case recalculate && g.newHash == nil, g.sb.Flags&(flagRecalculating|flagBitmap) != 0 && g.newHash == nil:
		return geometryError("Recalculate can only be specified with internal_hash")
	case g.target.Len > g.layout.provided:
		return geometryError("Not enough provided sectors for requested mapping size")
	case recalculate && !g.line.LegacyRecalculate && g.replaceable():
		return dm.Errorf(syscall.EOPNOTSUPP, "Recalculating with HMAC is disabled for security reasons - if you really need it, use the argument \"legacy_recalculate\"")
	}
	return nil
}

// replaceable reports whether recalculation, which anyone can cause by changing the superblock,
// could give tags to blocks that somebody without the key has changed.
func (g *integrity) replaceable() bool {
	keyed, mac := g.line.Key != "", g.line.JournalMAC.Key != ""
	if g.sb.Flags&flagHMAC == 0 {
		return keyed || mac
	}
	return keyed && !mac // only with journal_mac, the superblock has a MAC
}

// format writes an empty journal and then the superblock, so that a disk with a superblock
// always has a valid journal.
func (g *integrity) format() error {
	if err := newJournal(g).format(); err != nil {
		return dm.Because(err, "Error initializing journal")
	}
	return dm.Because(g.writeSuperblock(), "Error initializing superblock")
}

// writeSuperblock writes the superblock and makes it durable.
func (g *integrity) writeSuperblock() error {
	g.mu.Lock()
	g.sb.setVersion(g.layout.meta, g.line.Mode)
	p := g.sb.encode()
	g.mu.Unlock()
	g.seal.superblock(p)
	if err := blk.WriteSectors(g.env, g.meta, p, g.start, 0); err != nil {
		return err
	}
	return blk.FlushDevice(g.env, g.meta)
}

// prepare replays the journal or reads the bitmap, and updates the superblock before the first
// I/O. It reads the superblock again, because the previous table may have changed it since this
// one was loaded.
func (g *integrity) prepare() error {
	p, err := readEncoded(g.env, g.meta, g.start)
	if err != nil {
		return err
	}
	if g.seal.superblockDamaged(p) {
		return errors.New("the superblock is damaged, or the key of journal_mac is wrong: it does not match its MAC")
	}
	s, err := parseSuperblock(p)
	if err != nil {
		return err
	}
	if s.TagSize != g.sb.TagSize || s.LogBlock != g.sb.LogBlock || s.LogInterleave != g.sb.LogInterleave || s.JournalSections != g.sb.JournalSections ||
		(s.Flags^g.sb.Flags)&flagJournalMAC != 0 {
		return errors.New("the disk was formatted again since the table was loaded")
	}
	g.mu.Lock()
	g.sb = s
	g.mu.Unlock()
	if s.Flags&flagBitmap != 0 {
		if err := g.checkBitmap(); err != nil {
			return err
		}
	}
	if s.Flags&flagBitmap != 0 && g.bitmap != nil {
		return g.bitmap.reopen()
	}
	dirty := false
	if s.Flags&flagBitmap != 0 {
		if dirty, err = g.leaveBitmap(); err != nil {
			return err
		}
	}
	if err := g.journalOrNew().replay(); err != nil {
		return err
	}
	if err := g.updateSuperblock(dirty); err != nil || g.bitmap == nil {
		return err
	}
	return g.bitmap.enter()
}

// checkBitmap returns an error if a journal that must be replayed lies where the superblock tells
// of a bitmap: a flag is wrong, and the blocks of the journal would be lost. (An empty journal
// stays there if the power is cut while a bitmap replaces it.)
func (g *integrity) checkBitmap() error {
	s, err := newJournal(g).scan()
	if err != nil {
		return nil // no journal
	}
	if last, ok := s.last(); ok && !s.emptied(last) {
		return errors.New("the superblock is damaged: it tells of a bitmap, but there is a journal with blocks; use mode R to read the disk without the journal")
	}
	return nil
}

func (g *integrity) journalOrNew() *journal {
	if g.journal != nil {
		return g.journal
	}
	return newJournal(g)
}

// leaveBitmap replaces the bitmap by an empty journal, for another mode. It returns whether
// the bitmap had bits, so that tags must be recalculated.
func (g *integrity) leaveBitmap() (dirty bool, err error) {
	b := newBitmap(g)
	if dirty, err = b.read(); err != nil {
		return dirty, err
	}
	g.updateFields(dirty)
	return dirty, b.leave()
}

// updateSuperblock records a new size of the device and the start of a recalculation.
func (g *integrity) updateSuperblock(dirty bool) error {
	if !g.updateFields(dirty) {
		return nil
	}
	return g.writeSuperblock()
}

// updateFields changes the superblock in memory, and returns whether it differs. If dirty,
// tags must be recalculated.
func (g *integrity) updateFields(dirty bool) (changed bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	before := *g.sb
	g.sb.Provided = g.layout.provided
	if dirty || g.line.ResetRecalculate || g.line.Recalculate && g.sb.Flags&flagRecalculating == 0 {
		g.sb.Flags |= flagRecalculating
		g.sb.RecalcSector = 0
	}
	if g.sb.Flags&flagRecalculating != 0 {
		g.sb.RecalcSector = min(g.sb.RecalcSector&^(g.layout.blockSectors-1), g.layout.provided)
	}
	return *g.sb != before
}
