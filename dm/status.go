package dm

import (
	"context"
	"maps"
	"slices"
	"syscall"
)

// Status is the state of a device as dmsetup info prints it.
type Status struct {
	Name, UUID          string
	Number              Number
	Suspended           bool
	InternallySuspended bool
	ReadOnly            bool
	DeferredRemove      bool
	Live, Inactive      bool // there is such a table
	Targets             int  // in the live table
	Opens               int
	Holders             map[Holder]int // Opens by kind of holder
	EventNr             uint32
	Sectors             uint64 // of the live table
}

// Status returns the device's state.
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

// Lines returns a line for each target of a table, whose Params are the target's status
// or table text, as kind says. inactive selects the slot. Without a table there are no
// lines.
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

// Loaded returns the lines and the mode that a slot's table was loaded with; ok is false
// if the slot is empty. These are what has to be saved to load the table again after a
// restart.
func (d *Device) Loaded(inactive bool) (specs []Spec, mode Mode, ok bool) {
	t := d.slot(inactive)
	if t == nil {
		return nil, Mode{}, false
	}
	return slices.Clone(t.specs), t.mode, true
}

// useSlot returns the table of a slot, to be released after use, or nil.
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

// Target returns the live target that maps a sector, or nil. It is for callers that know
// the target's Mapper.
func (d *Device) Target(sector uint64) *Target {
	if t := d.table(); t != nil {
		return t.find(sector)
	}
	return nil
}

// Deps returns the devices that a slot's table uses, the most recently opened first.
func (d *Device) Deps(inactive bool) []Number {
	t := d.slot(inactive)
	if t == nil {
		return nil
	}
	return t.deps()
}

// Wait blocks until the device's event number is not nr. A removal is an event, too.
// EINTR: ctx was cancelled.
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
