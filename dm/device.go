package dm

import (
	"sync"
	"sync/atomic"

	"udm/blk"
	"udm/env"
	"udm/internal/list"
)

// Device is a mapped device (the kernel's struct mapped_device). It is a
// blk.Device: Submit maps bios through the live table.
//
// Life of a bio:
//
//	Submit ─ live table, plain read or write ───────► split ► Map ► lower device
//	   │                                                ▲
//	   └─ suspended, no table, or barriers at work ─► waiting ─ worker ┘
type Device struct {
	env     env.Env
	control *Control
	number  Number

	inFlight
	hints
	work
	slots
	lowers
	record

	// ctl serialises load, suspend, resume, swap and destroy. Held while waiting.
	ctl     *env.Mutex
	loading *env.Mutex  // serialises Load
	typed   atomic.Bool // a table has been loaded before; written under loading
}

// hints are read on the path of bios and rarely written.
type hints struct {
	limits     atomic.Pointer[blk.Limits] // of the live table; written under mu
	noflushing atomic.Bool                // a noflush suspend is under way; written under mu
	noDiscard  atomic.Bool                // a lower device has refused a discard that it offered
	noZeroes   atomic.Bool                // the same for write-zeroes
	stats      atomic.Pointer[statsRef]   // nil: no region, and I/O is not accounted
	lastWrite  atomic.Bool                // the last I/O counted was not a read
	throttle   atomic.Pointer[member]     // nil: no limits
	failed     [numOps]atomic.Uint64      // pieces, by op
}

// work is the device's own work, and what it wakes.
type work struct {
	queue   env.Queue
	send    *env.Work // sendWaiting
	requeue *env.Work // requeuePieces
	drained env.Wait  // wakes when the in-flight count may have become 0
	events  env.Wait  // wakes at each event
}

// slots are the live table and the bios that wait for a table or for their turn.
type slots struct {
	mu       sync.Mutex
	state    state                    // guarded by mu
	live     *Table                   // guarded by mu
	waiting  waiting                  // guarded by mu
	flushed  list.List[piece, *piece] // guarded by mu; preflush done, data not sent yet
	requeued list.List[piece, *piece] // guarded by mu; LIFO
	barrier  barrier                  // guarded by mu
	eventNr  uint32                   // guarded by mu
}

// record is what dm-ioctl.c keeps for a device. All of it is guarded by control.mu.
type record struct {
	name, uuid     string
	inactive       *Table
	readOnly       bool
	deferredRemove bool
	opens          int
	holders        map[Holder]int // opens by kind of holder
}

// Submit maps b through the live table. A bio that cannot be mapped now waits: for
// a table, a resume, or older bios. It never blocks.
func (d *Device) Submit(b *blk.Bio) {
	t := d.fast.Load()
	if t == nil || b.Op > blk.Write || b.Flags&(blk.Preflush|blk.Barrier) != 0 {
		d.submitSlowly(b)
		return
	}
	d.splitAndMap(t, b)
}

// Limits returns the limits of the live table. A device without one has size 0.
func (d *Device) Limits() blk.Limits {
	l := *d.limits.Load()
	if d.noDiscard.Load() {
		l.MaxDiscard, l.DiscardGranularity = 0, 0
	}
	if d.noZeroes.Load() {
		l.MaxWriteZeroes = 0
	}
	return l
}

// Number is the device's major and minor number.
func (d *Device) Number() Number { return d.number }

// disable stops offering an op that a lower device offered and then refused.
func (d *Device) disable(op blk.Op) {
	switch op {
	case blk.Discard:
		d.noDiscard.Store(true)
	case blk.WriteZeroes:
		d.noZeroes.Store(true)
	}
}
