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
	bytes int32  // the result if the request succeeds
	data  []byte // of a read or write
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
	r.bytes, r.data = 0, nil
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
	}
	if flags&descFUA != 0 && op == blk.Write {
		b.Flags |= blk.FUA
	}
	if flags&descNoUnmap != 0 && op == blk.WriteZeroes {
		b.Flags |= blk.NoUnmap
	}
	if len(q.waiting) > 0 && int(r.bytes) > q.size {
		q.waiting = append(q.waiting, r)
		return
	}
	q.transfer(r)
}

// transfer gives a request its data and submits it, or lets it wait for a buffer.
func (q *queue) transfer(r *request) {
	if r.bytes > 0 {
		if r.data = q.take(r.tag, int(r.bytes)); r.data == nil {
			q.waiting = append(q.waiting, r)
			return
		}
		r.bio.SetData(r.data)
	}
	if q.copies && r.bio.Op == blk.Write && !q.copied(unix.Pread, r) {
		q.commit(r, -int32(unix.EIO))
		return
	}
	q.submit(r)
}

// Offsets of the data of requests in /dev/ublkcN.
const (
	dataOffset = 0x80000000
	tagShift   = 25
	queueShift = 41
)

// copied copies the data of a request from the kernel (Pread) or to it (Pwrite).
func (q *queue) copied(transfer func(fd int, p []byte, off int64) (int, error), r *request) bool {
	off := dataOffset + int64(q.id)<<queueShift + int64(r.tag)<<tagShift
	n, err := transfer(q.server.fd, r.data, off)
	if n == len(r.data) {
		return true
	}
	q.server.log.Error("the kernel refused to copy the data of a request to a block device", "device", q.server.info.ID, "bytes", len(r.data), "copied", n, "reason", err)
	return false
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

// ended answers a request whose bio has ended, unless the server is leaving: the kernel passes it to
// the next server. Whoever waits for an answer sends no further request: see calm.
func (q *queue) ended(r *request) {
	switch st := r.bio.Status(); {
	case q.leaving:
		q.release(r)
	case st != blk.OK:
		q.commit(r, -int32(st.Errno()))
	case q.copies && r.bio.Op == blk.Read && !q.copied(unix.Pwrite, r):
		q.commit(r, -int32(unix.EIO))
	default:
		q.commit(r, r.bytes)
	}
}

// release ends the server's work on a request.
func (q *queue) release(r *request) {
	q.held--
	q.give(r.data)
	r.data = nil
}

func (q *queue) commit(r *request, result int32) {
	q.release(r)
	q.command(cmdCommit, r, result)
}
