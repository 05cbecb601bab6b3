package snapshot

import (
	"fmt"

	"udm/blk"
	"udm/dm"
)

// Status gives the kernel's words: see the manual in Type's Doc.
func (s *snapshot) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return s.tableText()
	}
	switch f := s.flags.Load(); {
	case f&flagValid == 0:
		return "Invalid"
	case f&flagWaiting != 0: // no chunk size is known yet
		return fmt.Sprintf("0/%d 0", s.cow.Limits().Size)
	case f&flagMergeFailed != 0:
		return "Merge failed"
	case f&flagOverflowed != 0:
		return "Overflow"
	}
	allocated, total, metadata := s.body.Load().store.usage()
	return fmt.Sprintf("%d/%d %d", allocated, total, metadata)
}

func (s *snapshot) tableText() string {
	st := s.body.Load().store
	text := fmt.Sprintf("%s %s %s %d", s.origin.Name(), s.cow.Name(), st.kind(s.overflow), s.chunkSize())
	switch {
	case s.passdown:
		text += " 2 discard_zeroes_cow discard_passdown_origin"
	case s.zeroesCow:
		text += " 1 discard_zeroes_cow"
	}
	return text
}

func (s *snapshot) Areas() []dm.Area {
	return []dm.Area{{Dev: s.origin, Len: s.target.Len}, {Dev: s.cow, Len: s.cow.Limits().Size}}
}

// Hint lets discards come chunk by chunk.
func (s *snapshot) Hint(l *blk.Limits) {
	if !s.zeroesCow {
		return
	}
	chunk := s.chunkSize()
	if src := s.group.sharing(s).src; s.has(flagWaiting) && src != nil {
		chunk = src.chunkSize()
	}
	if chunk != 0 {
		l.MaxDiscard, l.DiscardGranularity = chunk, uint32(chunk*blk.SectorSize)
	}
}
