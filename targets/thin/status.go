package thin

import (
	"fmt"
	"strconv"
	"strings"

	"udm/blk"
	"udm/dm"
	"udm/pdata"
)

// PoolStatus is a thin-pool's status line: the figures, or a State that replaces
// them.
type PoolStatus struct {
	State         State
	TransactionID uint64 // as set by set_transaction_id
	UsedMetadata  uint64 // blocks of 4 KiB
	TotalMetadata uint64
	UsedData      uint64 // blocks of the pool's block size
	TotalData     uint64
	HeldRoot      uint64 // metadata block; 0: no snapshot of the metadata is held
	Mode          Mode

	IgnoreDiscard  bool   // discards are not supported
	NoPassdown     bool   // discards do not reach the data device
	ErrorIfNoSpace bool   // writes that need space fail; else they wait for it
	NeedsCheck     bool   // the metadata must be checked and repaired
	LowMetadata    uint64 // an event is raised when fewer metadata blocks are free
}

// ThinStatus is a thin's status line: the figures, or a State that replaces them.
// Figures are in sectors.
type ThinStatus struct {
	State  State
	Mapped uint64 // sectors of mapped blocks
	End    uint64 // end of the last mapped block; 0: nothing is mapped
}

// State is the word that replaces the figures.
type State string

const (
	Figures State = ""
	Fail    State = "Fail"  // the pool is in mode fail: all I/O fails
	Error   State = "Error" // the metadata could not be read this time
)

// Mode is what a pool can still do.
type Mode string

const (
	ReadWrite      Mode = "rw"
	ReadOnly       Mode = "ro" // writes that need a new block fail
	OutOfDataSpace Mode = "out_of_data_space"
)

// ParsePoolStatus parses a status line.
func ParsePoolStatus(status string) (*PoolStatus, error) {
	s := &PoolStatus{State: State(status)}
	if s.State == Fail || s.State == Error {
		return s, nil
	}
	*s = PoolStatus{}
	var held, discard, space, check string
	n, _ := fmt.Sscanf(status, "%d %d/%d %d/%d %s %s %s %s %s %d", &s.TransactionID, &s.UsedMetadata, &s.TotalMetadata,
		&s.UsedData, &s.TotalData, &held, &s.Mode, &discard, &space, &check, &s.LowMetadata)
	s.HeldRoot, _ = strconv.ParseUint(held, 10, 64)
	s.IgnoreDiscard, s.NoPassdown = discard == "ignore_discard", discard == "no_discard_passdown"
	s.ErrorIfNoSpace, s.NeedsCheck = space == "error_if_no_space", check == "needs_check"
	if n != 11 || s.String() != status || !s.Mode.known() {
		return nil, dm.NotStatus("thin-pool", status)
	}
	return s, nil
}

func (m Mode) known() bool { return m == ReadWrite || m == ReadOnly || m == OutOfDataSpace }

// String ends in a blank, like the kernel's output.
func (s *PoolStatus) String() string {
	if s.State != Figures {
		return string(s.State)
	}
	held := "-"
	if s.HeldRoot != 0 {
		held = strconv.FormatUint(s.HeldRoot, 10)
	}
	return fmt.Sprintf("%d %d/%d %d/%d %s %s %s %s %s %d ", s.TransactionID, s.UsedMetadata, s.TotalMetadata,
		s.UsedData, s.TotalData, held, s.Mode, s.discard(), choose(s.ErrorIfNoSpace, "error_if_no_space", "queue_if_no_space"),
		choose(s.NeedsCheck, "needs_check", "-"), s.LowMetadata)
}

func (s *PoolStatus) discard() string {
	switch {
	case s.IgnoreDiscard:
		return "ignore_discard"
	case s.NoPassdown:
		return "no_discard_passdown"
	}
	return "discard_passdown"
}

func choose(yes bool, word, otherwise string) string {
	if yes {
		return word
	}
	return otherwise
}

// Usage is the use of data and metadata.
func (s *PoolStatus) Usage() []dm.Usage {
	if s.State != Figures {
		return []dm.Usage{{State: string(s.State)}}
	}
	return []dm.Usage{
		{What: "data", Used: s.UsedData, Total: s.TotalData},
		{What: "metadata", Used: s.UsedMetadata, Total: s.TotalMetadata, Unit: pdata.BlockSize},
	}
}

// ParseThinStatus parses a status line.
func ParseThinStatus(status string) (*ThinStatus, error) {
	s := &ThinStatus{State: State(status)}
	if s.State == Fail || s.State == Error {
		return s, nil
	}
	mapped, highest, _ := strings.Cut(status, " ")
	*s = ThinStatus{}
	s.Mapped, _ = strconv.ParseUint(mapped, 10, 64)
	if last, err := strconv.ParseUint(highest, 10, 64); err == nil {
		s.End = last + 1
	}
	if s.String() != status {
		return nil, dm.NotStatus("thin", status)
	}
	return s, nil
}

func (s *ThinStatus) String() string {
	switch {
	case s.State != Figures:
		return string(s.State)
	case s.End == 0:
		return fmt.Sprintf("%d -", s.Mapped)
	}
	return fmt.Sprintf("%d %d", s.Mapped, s.End-1)
}

// Usage is the mapped part of the volume.
func (s *ThinStatus) Usage() []dm.Usage {
	return []dm.Usage{{Used: s.Mapped, Unit: blk.SectorSize, State: string(s.State)}}
}
