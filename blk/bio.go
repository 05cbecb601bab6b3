// Package blk defines block devices: one asynchronous request ([Bio]) and one
// interface ([Device]). Everything else is functions over them.
//
// # Units
//
// Addresses and lengths are in sectors of 512 bytes unless a name says bytes.
//
// # Life of a bio
//
// The submitter fills a Bio and calls [Device.Submit]. From then until End runs, the
// bio and the memory of its buffers belong to the device, and the submitter must not
// touch them. End runs exactly once, on any goroutine, possibly on the submitter's
// own stack before Submit returns, so a submitter must hold no lock that End takes.
// After End the bio belongs to the submitter again and may be reused after
// [Bio.Reset]. While a device owns a bio it may change Sector, Sectors and the
// position in the buffers (splitting does), so these are meaningless after End. Bufs
// and the slices in it never change.
//
// A device writes only to the buffers of a read, and never after End. The data of a
// write does not change until End, unless the bio has [Unstable]: its memory is
// shared with a client that may write to it at any time.
//
// # What a flush covers
//
// A flush makes durable every write whose End had run with [OK] before the flush was
// submitted. It does not cover writes in flight. A write with [FUA] is durable when
// its End runs. A write with [Preflush] flushes first: its data is not issued before
// the flush is complete.
//
// # No space
//
// A bio that ends with [NoSpace] may have taken effect in part. It may be repeated
// and succeeds once there is space. This includes flushes: what they cover is not
// lost. A device that has lost acknowledged data returns [IOErr].
//
// # Recursion
//
// Devices complete inline when they can, so an End that submits the next bio to the
// same device may nest without bound. To chain bios, submit them from a queue
// ([env.Queue]) or a loop, not from End.
//
// The fields are those of the kernel's struct bio, include/linux/blk_types.h.
package blk

import (
	"fmt"
	"strings"
	"sync/atomic"

	"udm/internal/invariants"
	"udm/internal/list"
)

// SectorSize is the unit of addresses in bytes; SectorShift is its log2.
const (
	SectorSize  = 512
	SectorShift = 9
)

// Op is the operation of a bio.
type Op uint8

const (
	Read        Op = iota // device to buffers
	Write                 // buffers to device
	Flush                 // no data, no range: make completed writes durable
	Discard               // no data: the content of the range no longer matters
	WriteZeroes           // no data: the range reads as zeroes afterwards
	numOps
)

var opNames = [numOps]string{"read", "write", "flush", "discard", "write-zeroes"}

func (op Op) String() string {
	if op < numOps {
		return opNames[op]
	}
	return fmt.Sprintf("op(%d)", uint8(op))
}

// HasData reports whether bios of this op carry buffers.
func (op Op) HasData() bool { return op <= Write }

// IsWrite reports whether the op is in the write direction: everything but Read.
func (op Op) IsWrite() bool { return op != Read }

// Flags refine an op.
type Flags uint16

const (
	FUA       Flags = 1 << iota // write, write-zeroes: durable when End runs
	Preflush                    // write: a flush goes before the data
	Barrier                     // all earlier I/O is complete before it, and it is complete before all later I/O
	NoWait                      // fail with WouldBlock rather than wait for memory, locks or a resume
	Readahead                   // nobody waits for this read; may be failed when inconvenient
	NoUnmap                     // write-zeroes: keep the blocks allocated
	FastZero                    // write-zeroes: fail with NotSupported if no faster than writing
	Unstable                    // write: a client may change the data meanwhile; checkdev copies it for StableWrites
)

var flagNames = []string{"fua", "preflush", "barrier", "nowait", "readahead", "nounmap", "fastzero", "unstable"}

func (f Flags) String() string {
	var names []string
	for i, n := range flagNames {
		if f&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// Bio is one request. The zero value is an empty read; see the package comment
// for who owns it when. A Bio must not be copied while it is in flight.
type Bio struct {
	Op      Op
	Flags   Flags
	ended   bool   // for invariants: End has run
	idx     int32  // iterator: the buffer that the data starts in
	Sector  uint64 // first sector; ignored by Flush
	Sectors uint64 // length; 0 for Flush

	// Bufs holds the data, each slice a whole number of bytes; together, from
	// the iterator's position on, at least Sectors*512 bytes. Bios that were
	// split from one another share it.
	Bufs [][]byte
	done uint64 // iterator: bytes of Bufs[idx] that lie before the data

	// Tags holds [Limits].TagSize bytes for each logical block of Bufs, from the
	// beginning of Bufs on: what a device keeps beside each block. A read fills them.
	// Without them a read gets the data only, and a write makes them zeroes.
	Tags []byte

	status    atomic.Uint32 // a Status; atomic because split pieces report side by side
	remaining atomic.Int32  // extra completions to wait for: see Hold

	// End is called exactly once when the bio is complete; Status returns the result.
	// It must be set, and may be shared by many bios.
	End func(*Bio)

	// Private belongs to the submitter.
	Private any

	one  [1][]byte // backs Bufs for SetData
	next *Bio      // link of the List that the bio is in; the owner's
}

// List is a queue of bios. Adding to it never allocates.
type List = list.List[Bio, *Bio]

// Link is where a [List] keeps the next bio.
func (b *Bio) Link() **Bio { return &b.next }

// SetData makes p the bio's only buffer and sets Sectors from its length, which
// must be a multiple of 512. It does not allocate.
func (b *Bio) SetData(p []byte) {
	b.one[0] = p
	b.SetBufs(b.one[:], uint64(len(p))/SectorSize)
}

// SetBufs makes bufs the buffers, without tags, and their first sectors*512 bytes the data.
func (b *Bio) SetBufs(bufs [][]byte, sectors uint64) {
	b.Bufs, b.Tags, b.idx, b.done, b.Sectors = bufs, nil, 0, 0, sectors
}

// Reset prepares a bio that has ended, or a new one, for its next use. End,
// Private and the buffers are dropped.
func (b *Bio) Reset() {
	b.Op, b.Flags, b.Sector, b.Sectors = Read, 0, 0, 0
	b.Bufs, b.Tags, b.idx, b.done, b.one[0] = nil, nil, 0, 0, nil
	b.End, b.Private = nil, nil
	b.Rearm()
}

// Rearm makes a bio that has ended ready to be submitted again with the present
// values of its fields.
func (b *Bio) Rearm() {
	// An atomic store costs as much as the rest of a short bio, so only what is set
	// is cleared.
	if b.status.Load() != uint32(OK) {
		b.status.Store(uint32(OK))
	}
	if b.remaining.Load() != 0 {
		b.remaining.Store(0)
	}
	b.ended = false
}

// Status returns the result of the bio. Valid in and after End.
func (b *Bio) Status() Status { return Status(b.status.Load()) }

// SetStatus records a failure for Complete to report; the first one stays.
func (b *Bio) SetStatus(st Status) {
	if st != OK {
		b.status.CompareAndSwap(uint32(OK), uint32(st))
	}
}

// Hold makes one more Complete necessary before End runs. Whoever owns the bio
// may call it, before the Complete that it delays.
func (b *Bio) Hold() { b.remaining.Add(1) }

// Complete reports that the bio, or one of the parts that Hold announced, is
// finished with st. The last call runs End; the first failure is the bio's.
func (b *Bio) Complete(st Status) {
	if st != OK {
		b.SetStatus(st)
	}
	if b.remaining.Load() != 0 && b.remaining.Add(-1) >= 0 {
		return
	}
	if invariants.Enabled {
		invariants.Check(!b.ended, "bio completed twice: %v", b)
		b.ended = true
	}
	b.End(b)
}

// EndSector is the sector after the last one.
func (b *Bio) EndSector() uint64 { return b.Sector + b.Sectors }

func (b *Bio) String() string {
	s := fmt.Sprintf("%v %d+%d", b.Op, b.Sector, b.Sectors)
	if b.Flags != 0 {
		s += " " + b.Flags.String()
	}
	return s
}
