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
//	Submit ─ live table and nothing odd ────────────► split ► Map ► lower device
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

// hints are what bios on their way look at. Written rarely.
type hints struct {
	noflushing atomic.Bool              // a noflush suspend is under way; written under mu
	noDiscard  atomic.Bool              // a lower device turned out not to do it
	noZeroes   atomic.Bool              // likewise
	stats      atomic.Pointer[statsRef] // nil: no region
	lastWrite  atomic.Bool              // the I/O that was counted last was no read
}

// work is what the device does by itself, and who waits for it.
type work struct {
	queue   env.Queue
	send    *env.Work // sendWaiting
	requeue *env.Work // requeuePieces
	drained env.Wait  // wakes when the in-flight count may have become 0
	events  env.Wait  // wakes at each event
}

// slots are the live table and the bios that wait for one, or for their turn.
type slots struct {
	mu       sync.Mutex
	state    state                    // guarded by mu
	live     *Table                   // guarded by mu
	limits   blk.Limits               // guarded by mu; of the live table
	waiting  waiting                  // guarded by mu
	flushed  list.List[piece, *piece] // guarded by mu; their preflush is done, their data not sent
	requeued list.List[piece, *piece] // guarded by mu; LIFO
	barrier  barrier                  // guarded by mu
	eventNr  uint32                   // guarded by mu
}

// record is what dm-ioctl.c keeps beside a device; all guarded by control.mu.
type record struct {
	name, uuid     string
	inactive       *Table
	readOnly       bool
	deferredRemove bool
	opens          int
	holders        map[Holder]int // parts of opens
}

// Submit maps b through the live table, or keeps it until there is one.
func (d *Device) Submit(b *blk.Bio) {
	t := d.fast.Load()
	if t == nil || b.Op > blk.Write || b.Flags&(blk.Preflush|blk.Barrier) != 0 {
		d.submitSlowly(b)
		return
	}
	d.splitAndMap(t, b)
}

// Limits are those of the live table; a device without one has size 0.
func (d *Device) Limits() blk.Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	l := d.limits
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

// disable stops offering an op that a lower device said it would do and did not.
func (d *Device) disable(op blk.Op) {
	switch op {
	case blk.Discard:
		d.noDiscard.Store(true)
	case blk.WriteZeroes:
		d.noZeroes.Store(true)
	}
}
