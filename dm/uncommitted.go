package dm

import "slices"

// Uncommitted reports whether writes that are complete would be lost with this process,
// although a flush would keep them: [UncommittedHook] of the device's targets and of those
// below. It delays no I/O. While bios wait it is true, because the table may be changing.
func (d *Device) Uncommitted() bool {
	t := d.useRunning()
	if t == nil {
		return true
	}
	defer t.release()
	return t.uncommitted() || t.uncommittedBelow() || !d.runs(t)
}

func (t *Table) uncommitted() bool {
	return slices.ContainsFunc(t.targets, func(ti *Target) bool { return ti.core.hooks.Uncommitted() })
}

// uncommittedBelow asks all devices that the table has open, also those that are not among
// the areas of its targets.
func (t *Table) uncommittedBelow() bool {
	for i := 0; ; i++ {
		below := t.openedAt(i)
		if below == nil {
			return false
		}
		if m := below.Mapped(); m != nil && m.Uncommitted() {
			return true
		}
	}
}

// openedAt returns device i of the table, or nil behind the last one. Nothing is asked
// under mu.
func (t *Table) openedAt(i int) *Dev {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i >= len(t.opened) {
		return nil
	}
	return t.opened[i]
}
