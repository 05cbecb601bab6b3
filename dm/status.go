package dm

import (
	"context"
	"maps"
	"slices"
	"syscall"
)

// Status is what dmsetup info prints about a device.
type Status struct {
	Name, UUID          string
	Number              Number
	Suspended           bool
	InternallySuspended bool
	ReadOnly            bool
	DeferredRemove      bool
	Live, Inactive      bool // tables present
	Targets             int  // in the live table
	Opens               int
	Holders             map[Holder]int // parts of Opens
	EventNr             uint32
	Sectors             uint64
}

// Status tells the device's state.
func (d *Device) Status() Status {
	d.control.mu.Lock()
	s := Status{Name: d.name, UUID: d.uuid, Number: d.number, ReadOnly: d.readOnly,
		DeferredRemove: d.deferredRemove, Inactive: d.inactive != nil, Opens: d.opens, Holders: maps.Clone(d.holders)}
	d.control.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	s.Suspended, s.InternallySuspended, s.EventNr = d.state.suspended, d.state.internally > 0, d.eventNr
	if d.live != nil {
		s.Live, s.Targets, s.Sectors = true, len(d.live.targets), d.live.size
	}
	return s
}

// Lines are the texts of a table's targets: Spec.Params is INFO or TABLE text,
// as kind says. inactive selects the slot. No table, no lines.
func (d *Device) Lines(kind StatusKind, inactive bool, flags StatusFlags) []Spec {
	t := d.useSlot(inactive)
	if t == nil {
		return nil
	}
	defer t.release()
	lines := make([]Spec, len(t.targets))
	for i, ti := range t.targets {
		lines[i] = Spec{Start: ti.Begin, Len: ti.Len, Type: ti.Type.Name, Params: ti.core.hooks.Status(kind, flags)}
	}
	return lines
}

// Loaded returns the lines that a slot's table was loaded from, and how; ok is
// false when the slot is empty. Whoever keeps tables across restarts saves these.
func (d *Device) Loaded(inactive bool) (specs []Spec, mode Mode, ok bool) {
	t := d.slot(inactive)
	if t == nil {
		return nil, Mode{}, false
	}
	return slices.Clone(t.specs), t.mode, true
}

// useSlot returns the table of a slot, to be released after use; nil for none.
func (d *Device) useSlot(inactive bool) *Table {
	mu := &d.mu
	slot := &d.live
	if inactive {
		mu, slot = &d.control.mu, &d.inactive
	}
	mu.Lock()
	defer mu.Unlock()
	if *slot != nil {
		(*slot).use()
	}
	return *slot
}

func (d *Device) slot(inactive bool) *Table {
	if inactive {
		return d.inactiveTable()
	}
	return d.table()
}

// Target returns the live target that maps sector, nil for none: for commands
// that know a target's Mapper.
func (d *Device) Target(sector uint64) *Target {
	if t := d.table(); t != nil {
		return t.find(sector)
	}
	return nil
}

// Deps lists the devices that a table uses, the most recently opened first.
func (d *Device) Deps(inactive bool) []Number {
	t := d.slot(inactive)
	if t == nil {
		return nil
	}
	return t.deps()
}

// Wait blocks until the device's event number is not nr any more. EINTR: ctx
// was cancelled. ENXIO: the device has been removed.
func (d *Device) Wait(ctx context.Context, nr uint32) error {
	stop := context.AfterFunc(ctx, d.events.Wake)
	defer stop()
	d.events.Until(func() bool { return d.eventNow() != nr || ctx.Err() != nil })
	if d.eventNow() == nr {
		return Errorf(syscall.EINTR, "interrupted")
	}
	return nil
}

func (d *Device) eventNow() uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.eventNr
}
