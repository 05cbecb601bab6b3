package dm

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// The operations on regions that messages ask for.

// memoryFactor limits all regions together to this fraction of the machine's memory, so
// that a typing error cannot use up all of it.
const memoryFactor = 4

// allocate makes the areas and the histogram of r.
func (r *region) allocate(c *Control) error {
	n := (r.end - r.start) / r.step
	if (r.end-r.start)%r.step != 0 {
		n++
	}
	over, size := bits.Mul64(n, areaSize+8*uint64(len(r.bounds)+1))
	if over != 0 || int64(size) < 0 {
		return Errorf(syscall.EOVERFLOW, "%d areas are too many", n)
	}
	if limit := totalRAM() / memoryFactor; size > limit || c.statsMemory() > limit-size {
		return Errorf(syscall.ENOMEM, "%d areas need too much memory", n)
	}
	r.areas = make([]areaStats, n)
	if len(r.bounds) > 0 {
		r.histogram = make([]atomic.Uint64, int(n)*(len(r.bounds)+1))
	}
	return nil
}

// statsMemory returns the bytes that the regions of all devices use. It is computed
// whenever a region is made, so that no sum has to be kept up to date.
func (c *Control) statsMemory() (n uint64) {
	for _, d := range c.List() {
		for _, r := range d.regions() {
			n += areaSize*uint64(len(r.areas)) + 8*uint64(len(r.histogram))
		}
	}
	return n
}

func (d *Device) regions() []*region {
	if ref := d.stats.Load(); ref != nil {
		return ref.regions
	}
	return nil
}

func (d *Device) region(id int) (*region, error) {
	rs := d.regions()
	if i := slices.IndexFunc(rs, func(r *region) bool { return r.id == id }); i >= 0 {
		return rs[i], nil
	}
	return nil, Errorf(syscall.ENOENT, "no region %d", id)
}

// replaceRegions replaces the set of regions by the one that change makes from a copy.
func (d *Device) replaceRegions(change func([]*region) []*region) {
	d.changeStats(func(ref *statsRef) { ref.regions = change(slices.Clone(ref.regions)) })
}

// addRegion gives r the lowest free id.
func (d *Device) addRegion(r *region) {
	d.Quiet(func() {
		d.replaceRegions(func(rs []*region) []*region {
			r.id = 0
			for r.id < len(rs) && rs[r.id].id == r.id {
				r.id++
			}
			return slices.Insert(rs, r.id, r)
		})
	})
}

func (d *Device) deleteRegion(id int) error {
	if _, err := d.region(id); err != nil {
		return err
	}
	d.replaceRegions(func(rs []*region) []*region {
		return slices.DeleteFunc(rs, func(r *region) bool { return r.id == id })
	})
	return nil
}

// list returns the region's line in the reply to @stats_list.
func (r *region) list() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %d+%d %d %s %s", r.id, r.start, r.end-r.start, r.step, r.program, *r.aux.Load())
	if r.unit == time.Nanosecond {
		b.WriteString(" precise_timestamps")
	}
	for i, n := range r.bounds {
		if i == 0 {
			b.WriteString(" histogram:")
		} else {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, n)
	}
	return b.String() + "\n"
}

// print returns lines for the areas [from, to). With clear it subtracts from the counters
// what it prints.
func (r *region) print(now time.Duration, from, to uint64, clear bool) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		a := &r.areas[i]
		a.round(now / r.unit)
		fmt.Fprintf(&b, "%d+%d", r.start+i*r.step, r.step)
		for j, c := range a.columns() {
			if j == columnInFlight {
				fmt.Fprintf(&b, " %d", a.inFlight[0].Load()+a.inFlight[1].Load())
			}
			fmt.Fprintf(&b, " %d", take(c, clear))
		}
		if len(r.bounds) > 0 {
			sep := ' '
			for k := range r.buckets(int(i)) {
				fmt.Fprintf(&b, "%c%d", sep, take(&r.buckets(int(i))[k], clear))
				sep = ':'
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// columnInFlight is the position of the in-flight count among the columns.
const columnInFlight = 8

// columns returns the counters in the order of a line, without the in-flight counts.
func (a *areaStats) columns() [12]*atomic.Uint64 {
	return [12]*atomic.Uint64{
		&a.ios[0], &a.merges[0], &a.sectors[0], &a.ticks[0],
		&a.ios[1], &a.merges[1], &a.sectors[1], &a.ticks[1],
		&a.busyAny, &a.queued, &a.busy[0], &a.busy[1],
	}
}

// take returns the value of a counter and, with clear, subtracts it.
func take(c *atomic.Uint64, clear bool) uint64 {
	n := c.Load()
	if clear {
		c.Add(-n)
	}
	return n
}
