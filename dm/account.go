package dm

import (
	"sync/atomic"
	"time"

	"udm/blk"
)

// Accounting counts the I/O of devices, like /sys/block/dm-N/stat of Linux, from the first
// call of Control.Account on. A piece is counted when it ends, under the op of its bio, in
// per-processor counters. A piece that was refused counts only as failed, and one that was
// pushed back does not count. Before Control.Account is called, accounting costs nothing
// beyond the load of Device.stats that dm-stats regions need. Failures, which are rare, and
// I/O in flight are always counted.

const numOps = int(blk.WriteZeroes) + 1

// LatencyBounds are the inclusive upper bounds of the buckets of [OpAccount], powers of four.
// One more bucket counts longer times.
var LatencyBounds = [9]time.Duration{
	1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30, 1 << 32,
}

const numBuckets = len(LatencyBounds) + 1

// Account holds the I/O statistics of a device.
type Account struct {
	Ops      [numOps]OpAccount // by blk.Op
	InFlight int64             // pieces and bios in flight
	Waiting  int               // bios waiting for a resume, a table or their turn
}

// OpAccount holds the statistics of one op.
type OpAccount struct {
	Count   uint64 // pieces that ended
	Failed  uint64
	Sectors uint64
	Time    time.Duration      // sum of the latencies
	Buckets [numBuckets]uint64 // Count by latency, see LatencyBounds; not cumulative
}

// Account starts counting the I/O of all devices, including devices created later. Further
// calls do nothing.
func (c *Control) Account() {
	c.mu.Lock()
	on := c.accounting
	c.accounting = true
	c.mu.Unlock()
	if on {
		return
	}
	for _, d := range c.List() {
		d.account()
	}
}

// Accounting reports whether devices count their I/O.
func (c *Control) Accounting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accounting
}

// account starts counting. Pieces already in flight are not counted.
func (d *Device) account() {
	d.changeStats(func(ref *statsRef) { ref.accounted = true })
}

// counters are the counters of a shard for one op. Count is the sum of the buckets.
type counters struct {
	sectors, time atomic.Uint64
	buckets       [numBuckets]atomic.Uint64
}

// ioCounters are the counters of a shard, allocated on first use.
type ioCounters [numOps]counters

func (sh *shard) counters() *ioCounters {
	c := sh.io.Load()
	if c == nil {
		sh.io.CompareAndSwap(nil, new(ioCounters))
		c = sh.io.Load()
	}
	return c
}

// op returns the op under which a piece is counted: the preflush of a write counts as a
// flush.
func (p *piece) op() blk.Op {
	if p.flush {
		return blk.Flush
	}
	return p.orig.Op
}

// accountEnd counts the end of a piece with the given latency.
func (p *piece) accountEnd(took time.Duration) {
	c := &p.shard.counters()[p.op()]
	c.sectors.Add(p.sectors)
	c.time.Add(uint64(took))
	c.buckets[bucketOf(took)].Add(1)
}

func bucketOf(took time.Duration) int {
	for i, bound := range LatencyBounds {
		if took <= bound {
			return i
		}
	}
	return numBuckets - 1
}

// accountFailure counts a failed piece. Unsupported operations, and bios that were refused
// because they would block, do not count as failed.
func (p *piece) accountFailure(st blk.Status) {
	if st != blk.NotSupported && st != blk.WouldBlock {
		p.dev.failed[p.op()].Add(1)
	}
}

// Account returns the statistics of the device. The counters are not read atomically.
func (d *Device) Account() (a Account) {
	for i := range d.shards {
		a.add(&d.shards[i])
	}
	a.InFlight = max(a.InFlight, 0) // negative if pieces end while shards are being read
	for op := range a.Ops {
		a.Ops[op].Failed = d.failed[op].Load()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a.Waiting = d.waiting.n
	return a
}

func (a *Account) add(sh *shard) {
	a.InFlight += sh.n.Load()
	c := sh.io.Load()
	if c == nil {
		return
	}
	for op := range a.Ops {
		a.Ops[op].add(&c[op])
	}
}

func (o *OpAccount) add(c *counters) {
	o.Sectors += c.sectors.Load()
	o.Time += time.Duration(c.time.Load())
	for i := range c.buckets {
		n := c.buckets[i].Load()
		o.Buckets[i] += n
		o.Count += n
	}
}

// Commits holds the statistics of metadata commits since the table was loaded.
type Commits struct {
	Count   uint64
	Time    time.Duration // sum of the durations
	Longest time.Duration
}

// Commits returns the commit statistics of the live table.
func (d *Device) Commits() (sum Commits) {
	t := d.useSlot(false)
	if t == nil {
		return sum
	}
	defer t.release()
	for _, ti := range t.targets {
		c := ti.core.hooks.Commits()
		sum.Count += c.Count
		sum.Time += c.Time
		sum.Longest = max(sum.Longest, c.Longest)
	}
	return sum
}
