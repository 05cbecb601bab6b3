package snapshot

import (
	"fmt"

	"udm/blk"
	"udm/dm"
)

// Status is the status line of snapshot and snapshot-merge: figures, or a State that
// replaces them. Figures are in sectors.
type Status struct {
	State     State
	Allocated uint64 // in use in the store, including Metadata
	Total     uint64 // size of the store
	Metadata  uint64 // used by the store itself; a merge is complete when Allocated equals it
}

// State is the words that replace the figures.
type State string

const (
	Figures     State = ""
	Invalid     State = "Invalid"      // the content of the snapshot is lost
	MergeFailed State = "Merge failed" // the merge stopped at an error
	Overflow    State = "Overflow"     // the store is full: writes fail
	Unknown     State = "Unknown"      // only from the kernel, for a store without figures
)

// ParseStatus parses a status line.
func ParseStatus(status string) (*Status, error) {
	switch s := State(status); s {
	case Invalid, MergeFailed, Overflow, Unknown:
		return &Status{State: s}, nil
	}
	var s Status
	_, err := fmt.Sscanf(status, "%d/%d %d", &s.Allocated, &s.Total, &s.Metadata)
	if err != nil || s.String() != status {
		return nil, dm.NotStatus("snapshot", status)
	}
	return &s, nil
}

func (s *Status) String() string {
	if s.State != Figures {
		return string(s.State)
	}
	return fmt.Sprintf("%d/%d %d", s.Allocated, s.Total, s.Metadata)
}

// Usage is the use of the store.
func (s *Status) Usage() []dm.Usage {
	return []dm.Usage{{Used: s.Allocated, Total: s.Total, Unit: blk.SectorSize, State: string(s.State)}}
}

// Status builds the kernel's status line: see the manual in the type's Doc.
func (s *snapshot) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return s.line().String()
	}
	return s.status().String()
}

func (s *snapshot) status() *Status {
	switch f := s.flags.Load(); {
	case f&flagValid == 0:
		return &Status{State: Invalid}
	case f&flagWaiting != 0: // the chunk size is not known yet
		return &Status{Total: s.cow.Limits().Size}
	case f&flagMergeFailed != 0:
		return &Status{State: MergeFailed}
	case f&flagOverflowed != 0:
		return &Status{State: Overflow}
	}
	allocated, total, metadata := s.body.Load().store.usage()
	return &Status{Allocated: allocated, Total: total, Metadata: metadata}
}

func (s *snapshot) line() *Line {
	return &Line{
		Origin: s.origin.Name(), COW: s.cow.Name(),
		Persistent: s.body.Load().store.persistent(), Overflow: s.overflow, Chunk: s.chunkSize(),
		ZeroesCOW: s.zeroesCow, PassdownOrigin: s.passdown,
	}
}

func (s *snapshot) Areas() []dm.Area {
	return []dm.Area{{Dev: s.origin, Len: s.target.Len}, {Dev: s.cow, Len: s.cow.Limits().Size}}
}

// Hint makes discards come in whole chunks.
func (s *snapshot) Hint(l *blk.Limits) {
	_, forgets := s.body.Load().store.(*transient)
	l.ProcessCache, l.ProcessMemory = l.ProcessCache || forgets, l.ProcessMemory || forgets
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
