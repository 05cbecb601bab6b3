package ublk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"udm/blk"
)

// request is the state of a tag.
type request struct {
	queue *queue
	tag   uint16
	bytes int32 // the result if the request succeeds
	bio   blk.Bio
	phase atomic.Int32
}

// Phases of a bio. Submit may return before or after End runs; the second of the two events
// makes the queue answer the request.
const (
	submitting = iota
	submitted  // Submit has returned first: End passes the request to the queue
	done       // End has run first: the queue answers when Submit returns
)

// ops maps the driver's operations.
var ops = map[uint8]blk.Op{0: blk.Read, 1: blk.Write, 2: blk.Flush, 3: blk.Discard, 5: blk.WriteZeroes}

const (
	descFUA     = 1 << 13
	descNoUnmap = 1 << 15
)

// start starts the request in the descriptor of a tag.
func (q *queue) start(r *request) {
	d := q.descs[int(r.tag)*descSize:][:descSize]
	flags, sectors := ne.Uint32(d), ne.Uint32(d[4:])
	op, known := ops[uint8(flags)]
	b := &r.bio
	b.Reset()
	b.Op, b.Sector, b.Sectors = op, ne.Uint64(d[8:]), uint64(sectors)
	r.bytes = 0
	switch {
	case !known:
		q.commit(r, -int32(unix.EOPNOTSUPP))
		return
	case op == blk.Flush:
		b.Sector, b.Sectors = 0, 0
	case op.HasData():
		if uint64(sectors)*blk.SectorSize > uint64(q.server.info.MaxBytes) {
			q.commit(r, -int32(unix.EIO))
			return
		}
		r.bytes = int32(sectors) * blk.SectorSize
		b.SetData(q.buffer(r.tag)[:r.bytes])
	}
	if flags&descFUA != 0 && op == blk.Write {
		b.Flags |= blk.FUA
	}
	if flags&descNoUnmap != 0 && op == blk.WriteZeroes {
		b.Flags |= blk.NoUnmap
	}
	q.submit(r)
}

func (q *queue) submit(r *request) {
	x := q.server.export
	if x.ReadOnly && r.bio.Op.IsWrite() && r.bio.Op != blk.Flush {
		q.commit(r, -int32(unix.EPERM))
		return
	}
	r.bio.End, r.bio.Private = bioEnded, r
	r.phase.Store(submitting)
	x.Device.Submit(&r.bio)
	if !r.phase.CompareAndSwap(submitting, submitted) {
		q.ended(r)
	}
}

func bioEnded(b *blk.Bio) {
	r := b.Private.(*request)
	if r.phase.CompareAndSwap(submitting, done) {
		return
	}
	q := r.queue
	q.late.mu.Lock()
	defer q.late.mu.Unlock()
	q.late.list = append(q.late.list, r)
	q.waker.Wake()
}

// ended answers a request whose bio has ended. Requests that fail while the server is leaving,
// perhaps because its device is closed, are not answered: the kernel passes them to the next server.
func (q *queue) ended(r *request) {
	switch st := r.bio.Status(); {
	case st == blk.OK:
		q.commit(r, r.bytes)
	case q.leaving:
		q.held--
	default:
		q.commit(r, -int32(st.Errno()))
	}
}

func (q *queue) commit(r *request, result int32) {
	q.held--
	q.command(cmdCommit, r, result)
}
