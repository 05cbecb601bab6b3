package dm

import (
	"sync/atomic"
	"time"

	"udm/blk"
)

// Accounting: what devices have done since somebody first asked, as Linux tells it in
// /sys/block/dm-N/stat. A piece counts when it ends, under the op of its bio, in
// counters of the processor that it is used on; a piece that was refused or pushed back
// counts only as failed, or not at all. Until Control.Account is called a piece costs what
// it costs without accounting: the look at Device.stats that regions need. Failures, which
// are rare, and what is in flight are always counted.

const numOps = int(blk.WriteZeroes) + 1

// LatencyBounds are the upper bounds of the buckets of [OpAccount], powers of four. What
// takes longer is in one more bucket.
var LatencyBounds = [9]time.Duration{
	1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30, 1 << 32,
}

const numBuckets = len(LatencyBounds) + 1

// Account is what a device has done, by blk.Op, and what it does at the moment.
type Account struct {
	Ops      [numOps]OpAccount
	InFlight int64 // pieces and bios
	Waiting  int   // bios that wait for a resume, a table or their turn
}

// OpAccount is what a device has done of one op.
type OpAccount struct {
	Count   uint64 // pieces that have ended
	Failed  uint64
	Sectors uint64
	Time    time.Duration      // sum of the times from beginning to end
	Buckets [numBuckets]uint64 // of Count, by the time that a piece took
}

// Account begins to count the I/O of all devices, those that are made later included.
// Told twice it does nothing.
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

// account counts the pieces that begin from now on.
func (d *Device) account() {
	for {
		old, ref := d.stats.Load(), &statsRef{accounted: true}
		if old != nil {
			ref.regions = old.regions
		}
		if d.stats.CompareAndSwap(old, ref) {
			return
		}
	}
}

// counters are those of one shard and op. Count is the sum of the buckets.
type counters struct {
	sectors, time atomic.Uint64
	buckets       [numBuckets]atomic.Uint64
}

// ioCounters are those of one shard, made when it is first used.
type ioCounters [numOps]counters

func (sh *shard) counters() *ioCounters {
	c := sh.io.Load()
	if c == nil {
		sh.io.CompareAndSwap(nil, new(ioCounters))
		c = sh.io.Load()
	}
	return c
}

// op is what the piece counts as: a flush that carries data is a flush first.
func (p *piece) op() blk.Op {
	if p.flush {
		return blk.Flush
	}
	return p.orig.Op
}

// accountEnd counts the end of a piece that took some time.
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

// accountFailure counts a piece that failed. What a device does not do, or not without
// waiting, has not failed.
func (p *piece) accountFailure(st blk.Status) {
	if st != blk.NotSupported && st != blk.WouldBlock {
		p.dev.failed[p.op()].Add(1)
	}
}

// Account returns what the device has done. The figures are not of one moment.
func (d *Device) Account() (a Account) {
	for i := range d.shards {
		a.add(&d.shards[i])
	}
	a.InFlight = max(a.InFlight, 0) // pieces end while shards are read
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

// Commits are the commits of metadata that a device has made since its table was loaded.
type Commits struct {
	Count   uint64
	Time    time.Duration // of all
	Longest time.Duration
}

// Commits returns those of the live table.
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
