package volume

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"udm/blk"
	"udm/dm"
	"udm/targets/snapshot"
)

// copyContent copies the content of a device or file to the start of another. After a
// crash it starts again.
type copyContent struct {
	final    `json:"-"`
	From, To place
	// Zeroes are written for holes; without it the destination is new and need not be
	// written there.
	Zeroes bool

	at uint64 // sectors copied so far
}

// place is a device by its name, or a file.
type place struct {
	Device string `json:"device,omitempty"`
	File   string `json:"file,omitempty"`
}

func (s *copyContent) kind() string { return "copy content" }

// pieceSectors is how much is copied before it checks whether to stop.
const pieceSectors = 32 << 11

func (s *copyContent) do(ctx context.Context, m *Manager, _ *operation) (err error) {
	from, err := m.open(s.From, false)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := m.open(s.To, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	size := from.Limits().Size
	end := min(s.at+pieceSectors, size)
	for _, e := range blk.ExtentsOf(from, s.at, end-s.at) {
		switch {
		case e.Data, s.Zeroes && to.Limits().MaxWriteZeroes == 0:
			err = m.copyRange(ctx, from, to, e)
		case s.Zeroes:
			err = blk.ZeroSectors(m.env, to, e.Sector, e.Sectors)
		}
		if err != nil {
			return err
		}
	}
	if s.at = end; s.at < size {
		return &notYet{0, s.at * blk.SectorSize, size * blk.SectorSize}
	}
	s.at = 0
	return blk.FlushDevice(m.env, to)
}

// copyBytes is the size of one read and write of a copy.
const copyBytes = 1 << 20

func (m *Manager) copyRange(ctx context.Context, from, to blk.Device, e blk.Extent) error {
	buf := make([]byte, min(copyBytes, e.Sectors*blk.SectorSize))
	for at := e.Sector; at < e.Sector+e.Sectors; {
		if ctx.Err() != nil {
			return refuse(syscall.EINTR, "interrupted")
		}
		p := buf[:min(uint64(len(buf)), (e.Sector+e.Sectors-at)*blk.SectorSize)]
		if err := blk.ReadSectors(m.env, from, p, at); err != nil {
			return fmt.Errorf("reading %v: %w", from, err)
		}
		if err := blk.WriteSectors(m.env, to, p, at, 0); err != nil {
			return fmt.Errorf("writing %v: %w", to, err)
		}
		at += uint64(len(p)) / blk.SectorSize
	}
	return nil
}

func (m *Manager) open(p place, write bool) (blk.Device, error) {
	if p.Device == "" {
		return m.files.Open(p.File, write)
	}
	d, err := m.control.Name(p.Device)
	if err != nil {
		return nil, err
	}
	return d.Open(write)
}

// awaitMerge waits until a device has merged its store.
type awaitMerge struct {
	final  `json:"-"`
	Device string
	most   uint64 // sectors left at the first check
}

func (s *awaitMerge) kind() string { return "await merge" }

// lookAgain is the time between two checks of a merge.
const lookAgain = 100 * time.Millisecond

func (s *awaitMerge) do(_ context.Context, m *Manager, _ *operation) error {
	d, err := m.control.Name(s.Device)
	if err != nil {
		return err
	}
	lines := d.Lines(dm.Info, false, dm.StatusNoflush)
	if len(lines) != 1 || lines[0].Type != "snapshot-merge" {
		return fmt.Errorf("%s does not merge; its snapshot-merge table is not live", s.Device)
	}
	st, err := snapshot.ParseStatus(lines[0].Params)
	if err != nil {
		return err
	}
	if st.State != "" {
		return fmt.Errorf("the merge of %s has stopped: %s; data that is not merged is still in its store", s.Device, st.State)
	}
	left := st.Allocated - min(st.Allocated, st.Metadata)
	if left == 0 {
		return nil
	}
	s.most = max(s.most, left)
	return &notYet{lookAgain, (s.most - left) * blk.SectorSize, s.most * blk.SectorSize}
}
