package volume

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// createVolume makes a volume in a pool, under an id that was free when the operation
// was planned. If a user takes the id by a message at that moment, this is detected,
// unless there is a crash just then.
type createVolume struct {
	Pool string
	ID   uint32
	Of   *uint32 // volume to take a snapshot of; nil: make an empty volume
	// Quiet is the device of that volume, which must do no I/O at the moment of
	// the snapshot; "": there is none.
	Quiet string

	taken bool // somebody else took the id
}

func (s *createVolume) kind() string { return "create volume" }

func (s *createVolume) do(ctx context.Context, m *Manager, _ *operation) error {
	err := m.quietly(s.Quiet, func() error {
		text := fmt.Sprintf("create_thin %d", s.ID)
		if s.Of != nil {
			text = fmt.Sprintf("create_snap %d %d", s.ID, *s.Of)
		}
		_, err := m.devices.Message(ctx, s.Pool, text)
		return err
	})
	s.taken = errors.Is(err, syscall.EEXIST)
	return err
}

// quietly runs f while no I/O of a device is in flight. It is not a suspend that a
// user could see or lift.
func (m *Manager) quietly(name string, f func() error) error {
	if name == "" {
		return f()
	}
	d, err := m.control.Name(name)
	if err != nil {
		return err
	}
	d.InternalSuspend()
	defer d.InternalResume()
	return f()
}

func (s *createVolume) undo(ctx context.Context, m *Manager, _ *operation) error {
	if s.taken {
		return nil
	}
	return deleteID(ctx, m, s.Pool, s.ID)
}

// deleteVolume returns the space of a volume to its pool.
type deleteVolume struct {
	final `json:"-"`
	Pool  string
	ID    uint32
}

func (s *deleteVolume) kind() string { return "delete volume" }

func (s *deleteVolume) do(ctx context.Context, m *Manager, _ *operation) error {
	return deleteID(ctx, m, s.Pool, s.ID)
}

func deleteID(ctx context.Context, m *Manager, pool string, id uint32) error {
	_, err := m.devices.Message(ctx, pool, fmt.Sprintf("delete %d", id))
	if errors.Is(err, syscall.ENODATA) {
		return nil
	}
	return err
}
