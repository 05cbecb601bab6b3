package dm

import (
	"udm/blk"
	"udm/internal/invariants"
)

// maxExtents is the most extents that one call lists.
const maxExtents = 1024

// Extents returns the device's allocation map as [blk.ExtentsFunc] defines it, put
// together from those of its targets ([ExtentsHook]). It delays no I/O and waits for no
// suspend, and no suspend waits for it: a device that is suspended or has no table is
// data. The result counts only if the table is still live afterwards, because the
// devices below may be in use for something else by then.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	t := d.useRunning()
	if t == nil {
		return blk.AllData(sector, sectors), nil
	}
	defer t.release()
	list := t.extents(sector, sectors)
	if !d.runs(t) {
		return blk.AllData(sector, sectors), nil
	}
	return list, nil
}

// useRunning returns the live table, to be released after use, or nil while bios wait.
func (d *Device) useRunning() *Table {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live == nil || !d.state.runs() {
		return nil
	}
	d.live.use()
	return d.live
}

// runs reports whether bios go through t.
func (d *Device) runs(t *Table) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.live == t && d.state.runs()
}

// extents asks the targets in turn, until one reports less than it was asked for.
func (t *Table) extents(sector, sectors uint64) (list []blk.Extent) {
	for end := sector + sectors; sector < end && len(list) <= maxExtents; {
		ti := t.find(sector)
		if ti == nil {
			list = blk.AppendExtent(list, blk.Extent{Sector: sector, Sectors: end - sector, Data: true})
			break
		}
		stop := min(end, ti.Begin+ti.Len)
		for _, e := range ti.extents(sector-ti.Begin, stop-sector) {
			list = blk.AppendExtent(list, blk.Extent{Sector: sector, Sectors: e.Sectors, Data: e.Data})
			sector += e.Sectors
		}
		if sector < stop {
			break
		}
	}
	return list[:min(len(list), maxExtents)]
}

func (ti *Target) extents(offset, sectors uint64) []blk.Extent {
	list := ti.core.hooks.Extents(offset, sectors)
	if invariants.Enabled {
		n := blk.SumExtents(list)
		invariants.Check(n > 0 && n <= sectors && list[0].Sector == offset, "%s: extents %v of %d+%d", ti.Type.Name, list, offset, sectors)
	}
	return list
}

// Extents is the allocation map of the mapped device.
func (h *handle) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return h.dev.Extents(sector, sectors)
}
