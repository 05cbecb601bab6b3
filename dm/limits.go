package dm

import (
	"slices"
	"syscall"

	"udm/blk"
)

// stack combines the limits of all devices below the table and checks that the targets
// fit them (the kernel's dm_calculate_queue_limits). It runs at the first load of a
// device and at every swap, with the devices' limits at that time.
func (t *Table) stack() (blk.Limits, error) {
	l := stackingDefaults()
	for _, ti := range t.targets {
		tl := ti.combined()
		if err := ti.checkAreas(&tl); err != nil {
			return l, err
		}
		merge(&l, &tl)
		l.TagSize = tl.TagSize
	}
	if len(t.targets) > 1 {
		l.TagSize = 0
	}
	if err := t.checkJoins(l.LogicalBlock); err != nil {
		return l, err
	}
	t.setAbilities(&l)
	l.Size = t.size
	l.ReadOnly = !t.mode.Write
	l.MaxSectors = 0
	return l, nil
}

// stackingDefaults returns limits that limit nothing: merging others with them gives
// the others.
func stackingDefaults() blk.Limits {
	return blk.Limits{
		LogicalBlock: blk.SectorSize, PhysicalBlock: blk.SectorSize, MinIO: blk.SectorSize,
		MaxDiscard: blk.NoLimit, MaxWriteZeroes: blk.NoLimit,
	}
}

// combined returns the combined limits of the target's devices, changed by its hints.
func (ti *Target) combined() blk.Limits {
	l := stackingDefaults()
	for _, a := range ti.core.hooks.Areas() {
		under := a.Dev.Limits()
		merge(&l, &under)
	}
	ti.core.hooks.Hint(&l)
	return l
}

// checkAreas refuses areas that reach beyond their device or are not aligned to the
// target's combined logical block (the kernel's device_area_is_invalid).
func (ti *Target) checkAreas(l *blk.Limits) error {
	block := uint64(l.LogicalBlock) / blk.SectorSize
	for _, a := range ti.core.hooks.Areas() {
		size := a.Dev.Limits().Size
		switch {
		case size == 0:
		case a.Start >= size || a.Start+a.Len > size:
			return Errorf(syscall.EINVAL, "%s too small for target: start=%d, len=%d, dev_size=%d", a.Dev.Name(), a.Start, a.Len, size)
		case block <= 1:
		case a.Start%block != 0:
			return Errorf(syscall.EINVAL, "start=%d not aligned to h/w logical block size %d of %s", a.Start, l.LogicalBlock, a.Dev.Name())
		case a.Len%block != 0:
			return Errorf(syscall.EINVAL, "len=%d not aligned to h/w logical block size %d of %s", a.Len, l.LogicalBlock, a.Dev.Name())
		}
	}
	return nil
}

// checkJoins refuses tables in which a logical block of the whole device would straddle
// two targets of which one cannot take a part of it (the kernel's
// validate_hardware_logical_block_alignment).
func (t *Table) checkJoins(logical uint32) error {
	block := uint64(logical) / blk.SectorSize
	var next, rest uint64
	for _, ti := range t.targets {
		own := uint64(ti.combined().LogicalBlock) / blk.SectorSize
		if rest < ti.Len && rest%own != 0 {
			return Errorf(syscall.EINVAL, "table line %d+%d not aligned to h/w logical block size %d", ti.Begin, ti.Len, logical)
		}
		next = (next + ti.Len) % block
		rest = 0
		if next != 0 {
			rest = block - next
		}
	}
	if rest != 0 {
		return Errorf(syscall.EINVAL, "table of %d sectors not aligned to h/w logical block size %d", t.size, logical)
	}
	return nil
}

// merge restricts l to what under allows as well (the kernel's blk_stack_limits).
func merge(l, under *blk.Limits) {
	l.LogicalBlock = max(l.LogicalBlock, under.LogicalBlock)
	l.PhysicalBlock = max(l.PhysicalBlock, under.PhysicalBlock)
	l.MinIO = max(l.MinIO, under.MinIO)
	l.OptIO = lcmNotZero(l.OptIO, under.OptIO)
	l.MaxDiscard = minNotZero(l.MaxDiscard, under.MaxDiscard)
	l.DiscardGranularity = max(l.DiscardGranularity, under.DiscardGranularity)
	l.MaxWriteZeroes = minNotZero(l.MaxWriteZeroes, under.MaxWriteZeroes)
	l.Rotational = l.Rotational || under.Rotational
	l.StableWrites = l.StableWrites || under.StableWrites
	l.ProcessCache = l.ProcessCache || under.ProcessCache
	l.ProcessMemory = l.ProcessMemory || under.ProcessMemory
}

// setAbilities applies the rules for whole tables: the device supports an op only if
// every target does, and has a volatile cache if any device below has one.
func (t *Table) setAbilities(l *blk.Limits) {
	if !t.every(func(ti *Target) bool { return ti.discards() }) {
		l.MaxDiscard, l.DiscardGranularity = 0, 0
	} else if l.DiscardGranularity == 0 {
		l.DiscardGranularity = l.LogicalBlock
	}
	if !t.every(func(ti *Target) bool { return ti.zeroes() }) {
		l.MaxWriteZeroes = 0
	}
	l.VolatileCache = slices.ContainsFunc(t.targets, func(ti *Target) bool { return ti.caches(false) })
	l.FUA = l.VolatileCache && slices.ContainsFunc(t.targets, func(ti *Target) bool { return ti.caches(true) })
	l.NoWait = t.every(func(ti *Target) bool { return ti.onEvery(func(l blk.Limits) bool { return l.NoWait }) })
}

func (t *Table) every(ok func(*Target) bool) bool {
	return !slices.ContainsFunc(t.targets, func(ti *Target) bool { return !ok(ti) })
}

// onEvery reports whether ok is true for all devices of the target. It is false for a
// target without devices.
func (ti *Target) onEvery(ok func(blk.Limits) bool) bool {
	areas := ti.core.hooks.Areas()
	return len(areas) > 0 && !slices.ContainsFunc(areas, func(a Area) bool { return !ok(a.Dev.Limits()) })
}

func (ti *Target) discards() bool {
	return ti.NumDiscard > 0 && (ti.DiscardsSupported || ti.onEvery(func(l blk.Limits) bool { return l.MaxDiscard > 0 }))
}

func (ti *Target) zeroes() bool {
	return ti.NumWriteZeroes > 0 && ti.onEvery(func(l blk.Limits) bool { return l.MaxWriteZeroes > 0 })
}

// caches reports whether there is a volatile cache below the target; with fua, whether
// there is one that honours FUA.
func (ti *Target) caches(fua bool) bool {
	if ti.NumFlush == 0 {
		return false
	}
	return ti.FlushSupported || slices.ContainsFunc(ti.core.hooks.Areas(), func(a Area) bool {
		l := a.Dev.Limits()
		return l.VolatileCache && (l.FUA || !fua)
	})
}

func minNotZero(a, b uint64) uint64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func lcmNotZero(a, b uint32) uint32 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	x, y := a, b
	for y != 0 {
		x, y = y, x%y
	}
	if n := uint64(a) / uint64(x) * uint64(b); n <= 1<<31 {
		return uint32(n)
	}
	return max(a, b)
}
