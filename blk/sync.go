package blk

import (
	"sync/atomic"

	"udm/env"
)

// Do submits b to d and waits for its end. It sets b.End. In a simulator the
// scheduler runs meanwhile.
func Do(e env.Env, d Device, b *Bio) Status {
	var done atomic.Bool
	w := e.NewWait()
	b.End = func(*Bio) {
		done.Store(true)
		w.Wake()
	}
	d.Submit(b)
	w.Until(done.Load)
	return b.Status()
}

// ReadSectors fills p, a multiple of 512 bytes, from sector on.
func ReadSectors(e env.Env, d Device, p []byte, sector uint64) error {
	return data(e, d, Read, 0, p, sector)
}

// WriteSectors writes p, a multiple of 512 bytes, from sector on. FUA and
// Preflush are allowed in flags.
func WriteSectors(e env.Env, d Device, p []byte, sector uint64, flags Flags) error {
	return data(e, d, Write, flags, p, sector)
}

func data(e env.Env, d Device, op Op, flags Flags, p []byte, sector uint64) error {
	b := &Bio{Op: op, Flags: flags, Sector: sector}
	b.SetData(p)
	return Do(e, d, b).Err()
}

// FlushDevice makes every completed write of d durable.
func FlushDevice(e env.Env, d Device) error {
	return Do(e, d, &Bio{Op: Flush}).Err()
}

// FlushDevices is FlushDevice of several devices side by side, so that those on one disk can
// share what a flush costs. It returns a status for each.
func FlushDevices[D Device](e env.Env, ds []D) []Status {
	bios := make([]Bio, len(ds))
	var left atomic.Int64
	left.Store(int64(len(ds)))
	w := e.NewWait()
	for i, d := range ds {
		bios[i].Op = Flush
		bios[i].End = func(*Bio) {
			left.Add(-1)
			w.Wake()
		}
		d.Submit(&bios[i])
	}
	w.Until(func() bool { return left.Load() == 0 })
	all := make([]Status, len(ds))
	for i := range bios {
		all[i] = bios[i].Status()
	}
	return all
}

// DiscardSectors tells d that the content of a range is no longer needed.
func DiscardSectors(e env.Env, d Device, sector, sectors uint64) error {
	return Do(e, d, &Bio{Op: Discard, Sector: sector, Sectors: sectors}).Err()
}

// ZeroSectors makes a range read as zeroes, with the op WriteZeroes.
func ZeroSectors(e env.Env, d Device, sector, sectors uint64) error {
	return Do(e, d, &Bio{Op: WriteZeroes, Sector: sector, Sectors: sectors}).Err()
}
