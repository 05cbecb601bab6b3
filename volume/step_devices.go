package volume

import (
	"context"
	"slices"
	"syscall"

	"udm/dm"
)

// createDevices makes devices, with or without tables.
type createDevices struct{ Devices []Device }

func (s *createDevices) kind() string { return "create devices" }

func (s *createDevices) do(ctx context.Context, m *Manager, op *operation) error {
	for i := range s.Devices {
		s.Devices[i].Record.Operation = op.ID
	}
	return m.devices.Create(ctx, s.Devices)
}

// undo removes those that were made: what stands on others first.
func (s *createDevices) undo(ctx context.Context, m *Manager, op *operation) error {
	own := make(map[string]bool)
	for _, d := range s.Devices {
		if m.devices.Record(d.Name).Operation == op.ID {
			own[d.Name] = true
		}
	}
	for len(own) > 0 {
		var top []string
		for name := range own {
			if !slices.ContainsFunc(m.users(name), func(u *dm.Device) bool { return own[u.Name()] }) {
				top = append(top, name)
			}
		}
		slices.Sort(top)
		if err := m.devices.Remove(ctx, top); err != nil {
			return err
		}
		for _, name := range top {
			delete(own, name)
		}
	}
	return nil
}

// keyed refuses steps that have a key in a table: the journal is a file, and keys are
// not written to files.
func (m *Manager) keyed(ss steps) error {
	for _, s := range ss {
		var ds []Device
		switch s := s.(type) {
		case *createDevices:
			ds = s.Devices
		case *swapTables:
			ds = s.Devices
		}
		for _, d := range ds {
			if _, keyed := m.control.WithoutKeys(d.Table); keyed {
				return dm.Errorf(syscall.EOPNOTSUPP, "the table of %s contains a key, which must not be saved; use a device on top of it instead", d.Name)
			}
		}
	}
	return nil
}

// swapTables gives devices new tables and records at one moment.
type swapTables struct {
	final   `json:"-"`
	Devices []Device
	// Independent: no device has to be saved before another.
	Independent bool `json:",omitempty"`
}

func (s *swapTables) kind() string { return "swap tables" }

func (s *swapTables) do(ctx context.Context, m *Manager, _ *operation) error {
	return m.devices.Swap(ctx, s.Devices, s.Independent)
}

// removeDevice removes a device, or several at one moment.
type removeDevice struct {
	final `json:"-"`
	Name  string   `json:",omitempty"`
	Names []string `json:",omitempty"`
}

func (s *removeDevice) kind() string { return "remove device" }

func (s *removeDevice) do(ctx context.Context, m *Manager, _ *operation) error {
	if s.Name != "" {
		return m.devices.Remove(ctx, []string{s.Name})
	}
	return m.devices.Remove(ctx, s.Names)
}

// renameDevice gives a device another name.
type renameDevice struct {
	final    `json:"-"`
	From, To string
}

func (s *renameDevice) kind() string { return "rename device" }

func (s *renameDevice) do(ctx context.Context, m *Manager, _ *operation) error {
	if _, err := m.control.Name(s.From); err != nil {
		_, err = m.control.Name(s.To) // it may have its new name already
		return err
	}
	return m.devices.Rename(ctx, s.From, s.To)
}
