// Package disk is a device for the tests of pdata: it holds what was written,
// remembers the order of writes and flushes, and can fail one of them.
package disk

import (
	"sync"

	"udm/blk"
)

// Disk is a device in memory with a volatile cache. It is sparse: what was never
// written is zero.
type Disk struct {
	mu     sync.Mutex
	blocks map[uint64]*[512]byte // guarded by mu; by sector
	size   uint64                // guarded by mu; sectors
	log    []Event               // guarded by mu; kept while record
	record bool                  // guarded by mu
	failAt int                   // guarded by mu; requests until one fails; 0: never
	failOp func(*blk.Bio) bool   // guarded by mu; which requests count
	counts [5]int                // guarded by mu; requests by op
}

// Event is a write, or a flush when Data is nil.
type Event struct {
	Sector uint64
	Data   []byte
}

// New makes a disk of size bytes.
func New(size uint64) *Disk {
	return &Disk{blocks: make(map[uint64]*[512]byte), size: size / 512}
}

func (d *Disk) Submit(b *blk.Bio) { b.Complete(d.do(b)) }

func (d *Disk) do(b *blk.Bio) blk.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[b.Op]++
	if d.failAt > 0 && (d.failOp == nil || d.failOp(b)) {
		if d.failAt--; d.failAt == 0 {
			return blk.IOErr
		}
	}
	switch b.Op {
	case blk.Read, blk.Write:
		if b.EndSector() > d.size {
			return blk.Invalid
		}
		p := make([]byte, b.Bytes())
		if b.Op == blk.Read {
			d.read(b.Sector, p)
			b.CopyIn(p)
			return blk.OK
		}
		b.CopyOut(p)
		d.write(b.Sector, p)
		if d.record {
			d.log = append(d.log, Event{b.Sector, p})
		}
	case blk.Flush:
		if d.record {
			d.log = append(d.log, Event{})
		}
	default:
		return blk.NotSupported
	}
	return blk.OK
}

func (d *Disk) read(sector uint64, p []byte) {
	for i := 0; i < len(p); i += 512 {
		if s := d.blocks[sector+uint64(i/512)]; s != nil {
			copy(p[i:i+512], s[:])
		} else {
			clear(p[i : i+512])
		}
	}
}

func (d *Disk) write(sector uint64, p []byte) {
	for i := 0; i < len(p); i += 512 {
		d.blocks[sector+uint64(i/512)] = (*[512]byte)(append([]byte(nil), p[i:i+512]...))
	}
}

func (d *Disk) Limits() blk.Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := blk.DefaultLimits(d.size)
	l.VolatileCache = true
	return l
}

func (d *Disk) Close() error   { return nil }
func (d *Disk) String() string { return "test disk" }

// Resize changes the size, in bytes.
func (d *Disk) Resize(size uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = size / 512
}

// FailAt lets the n'th request of those that count (all if nil) fail, 1 being
// the next one; 0 lets none fail.
func (d *Disk) FailAt(n int, counts func(*blk.Bio) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failAt, d.failOp = n, counts
}

// Failed reports whether the request of FailAt has come.
func (d *Disk) Failed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failAt == 0
}

// Counts is the number of requests of an op so far.
func (d *Disk) Counts(op blk.Op) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts[op]
}

// Record starts to keep a log of writes and flushes and returns the one kept so
// far.
func (d *Disk) Record() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	log := d.log
	d.log, d.record = nil, true
	return log
}

// Clone copies the disk as it is, without failures and log.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := New(d.size * 512)
	for k, v := range d.blocks {
		w := *v
		c.blocks[k] = &w
	}
	return c
}

// Apply writes sectors of a write to the disk: those for which keep says so.
func (d *Disk) Apply(e Event, keep func(sector uint64) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 0; i < len(e.Data); i += 512 {
		if s := e.Sector + uint64(i/512); keep(s) {
			d.write(s, e.Data[i:i+512])
		}
	}
}

// Bytes is the content.
func (d *Disk) Bytes() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := make([]byte, d.size*512)
	d.read(0, p)
	return p
}

// Load replaces the content.
func (d *Disk) Load(p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.size = uint64(len(p)) / 512
	clear(d.blocks)
	d.write(0, p[:d.size*512])
}
