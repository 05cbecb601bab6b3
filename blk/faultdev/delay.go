package faultdev

import (
	"fmt"

	"udm/blk"
	"udm/env"
)

// delay is a delayed bio.
type delay struct {
	d    *Device
	b    *blk.Bio
	rule Rule
	seq  uint64 // age
	work env.Work
}

func (d *Device) postpone(b *blk.Bio, r Rule) {
	w := &delay{d: d, b: b, rule: r}
	w.work.Fn = w.run
	d.mu.Lock()
	d.seq++
	w.seq = d.seq
	d.delayed[w] = struct{}{}
	d.mu.Unlock()
	d.queue.QueueAfter(&w.work, r.Delay)
}

func (w *delay) run() {
	w.d.mu.Lock()
	delete(w.d.delayed, w)
	if w.d.crashed {
		w.rule = offline
	}
	w.d.mu.Unlock()
	w.d.apply(w.b, w.rule)
	w.d.wait.Wake()
}

// Close waits for delayed bios and closes the device below.
func (d *Device) Close() error {
	d.wait.Until(func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.delayed) == 0
	})
	d.queue.Close()
	return d.lower.Close()
}

// Limits are those of the device below.
func (d *Device) Limits() blk.Limits { return d.lower.Limits() }

func (d *Device) String() string { return fmt.Sprintf("fault:%v", d.lower) }

// Extents is that of the device below. The rules do not apply, since it reads
// nothing.
func (d *Device) Extents(sector, sectors uint64) ([]blk.Extent, error) {
	return blk.ExtentsOf(d.lower, sector, sectors), nil
}
