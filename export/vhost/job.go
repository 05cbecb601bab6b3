//go:build linux

package vhost

import (
	"encoding/binary"
	"sync/atomic"

	"udm/blk"
	"udm/export/internal/virtq"
)

// Request types and statuses (virtio 1.2, 5.2.6).
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeID          = 8
	typeDiscard     = 11
	typeWriteZeroes = 13

	statusOK          = 0
	statusIOErr       = 1
	statusUnsupported = 2
)

const (
	reqHeaderLen = 16 // type 4, priority 4, sector 8
	rangeLen     = 16 // sector 8, sectors 4, flags 4
	rangeUnmap   = 1
	idLen        = 20
	keepBounce   = 64 << 10 // longer copy buffers are not kept for reuse
)

// job is a request in progress. The worker owns it except between Submit and End.
type job struct {
	worker *worker
	view   *view
	chain  virtq.Chain
	bio    blk.Bio
	op     uint32   // request type
	data   [][]byte // guest memory without the header and the status
	status []byte   // one byte of guest memory
	bounce []byte   // the bio's copy of data; empty: the bio uses data itself
	phase  atomic.Int32
}

// The phases of a bio. Submit returns and End runs in either order; the second of
// them continues the request.
const (
	submitting = iota
	away       // Submit has returned: End continues
	done       // End has run: the worker continues
)

func (j *job) forget() {
	j.data, j.status = nil, nil
	if j.bounce = j.bounce[:0]; cap(j.bounce) > keepBounce {
		j.bounce = nil
	}
}

// start begins a request. It reads each part of it from guest memory only once.
func (w *worker) start(j *job) {
	c := &j.chain
	if j.status, j.data = cutLast(c.In); j.status == nil {
		w.finish(j, 0) // there is no room for a status
		return
	}
	var h [reqHeaderLen]byte
	out, ok := cutFirst(c.Out, h[:])
	if !ok {
		w.finish(j, 0)
		return
	}
	if c.Err != nil || c.Bytes > maxRequest {
		w.answer(j, statusIOErr)
		return
	}
	j.op = binary.LittleEndian.Uint32(h[:])
	sector := binary.LittleEndian.Uint64(h[8:])
	switch j.op {
	case typeIn:
		w.transfer(j, blk.Read, sector)
	case typeOut:
		j.data = out
		w.transfer(j, blk.Write, sector)
	case typeFlush:
		j.bio.Reset()
		j.bio.Op = blk.Flush
		w.submit(j)
	case typeID:
		w.identify(j)
	case typeDiscard, typeWriteZeroes:
		w.erase(j, out)
	default:
		w.answer(j, statusUnsupported)
	}
}

// cutLast removes the last byte, or returns nil if there is none.
func cutLast(bufs [][]byte) (last []byte, rest [][]byte) {
	n := len(bufs) - 1
	if n < 0 {
		return nil, nil
	}
	p := bufs[n]
	k := len(p) - 1
	if k == 0 {
		return p, bufs[:n]
	}
	bufs[n] = p[:k]
	return p[k:], bufs
}

// cutFirst moves the first len(p) bytes to p; false if there are fewer.
func cutFirst(bufs [][]byte, p []byte) (rest [][]byte, ok bool) {
	for len(p) > 0 && len(bufs) > 0 {
		n := copy(p, bufs[0])
		p = p[n:]
		if bufs[0] = bufs[0][n:]; len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
	}
	return bufs, len(p) == 0
}

func length(bufs [][]byte) (n uint64) {
	for _, p := range bufs {
		n += uint64(len(p))
	}
	return n
}

// transfer submits a read or a write of j.data.
func (w *worker) transfer(j *job, op blk.Op, sector uint64) {
	n := length(j.data)
	if n%blk.SectorSize != 0 {
		w.answer(j, statusIOErr)
		return
	}
	b := &j.bio
	b.Reset()
	b.Op, b.Sector = op, sector
	if j.chain.Fixed {
		b.SetBufs(j.data, n/blk.SectorSize)
	} else {
		b.SetData(w.copied(j, op, int(n)))
	}
	if op == blk.Write {
		b.Flags = w.writeFlags(j)
	}
	w.submit(j)
}

// copied returns the copy buffer for the data.
func (w *worker) copied(j *job, op blk.Op, n int) []byte {
	if cap(j.bounce) < n {
		j.bounce = make([]byte, n)
	}
	j.bounce = j.bounce[:n]
	if op == blk.Write {
		p := j.bounce
		for _, from := range j.data {
			p = p[copy(p, from):]
		}
	}
	return j.bounce
}

// writeFlags returns the flags for writes: guests may change their memory meanwhile.
func (w *worker) writeFlags(j *job) (f blk.Flags) {
	if j.chain.Fixed {
		f = blk.Unstable
	}
	return f | w.durable()
}

// durable is FUA if completed writes must be durable.
func (w *worker) durable() blk.Flags {
	s := w.ring.session
	if s.cache.durable.Load() && s.export.Device.Limits().VolatileCache {
		return blk.FUA
	}
	return 0
}

// identify answers with the serial number.
func (w *worker) identify(j *job) {
	var id [idLen]byte
	copy(id[:], w.ring.session.serial)
	p := id[:]
	for _, to := range j.data {
		p = p[copy(to, p):]
	}
	w.finishWith(j, statusOK, uint32(idLen-len(p)))
}

// erase submits a discard or write-zeroes of one range.
func (w *worker) erase(j *job, out [][]byte) {
	var r [rangeLen]byte
	rest, ok := cutFirst(out, r[:])
	sectors, flags := binary.LittleEndian.Uint32(r[8:]), binary.LittleEndian.Uint32(r[12:])
	unmap := j.op == typeWriteZeroes && flags&rangeUnmap != 0
	switch {
	case !ok || len(rest) > 0 || sectors > maxRange:
		w.answer(j, statusIOErr)
		return
	case flags != 0 && !(unmap && flags == rangeUnmap):
		w.answer(j, statusUnsupported)
		return
	}
	b := &j.bio
	b.Reset()
	b.Op, b.Sector, b.Sectors = blk.Discard, binary.LittleEndian.Uint64(r[:]), uint64(sectors)
	if j.op == typeWriteZeroes {
		b.Op, b.Flags = blk.WriteZeroes, w.durable()
		if !unmap {
			b.Flags |= blk.NoUnmap
		}
	}
	w.submit(j)
}

// submit submits the bio. It may end on any goroutine.
func (w *worker) submit(j *job) {
	s := w.ring.session
	w.current = nil
	if s.export.ReadOnly && j.bio.Op.IsWrite() && j.bio.Op != blk.Flush {
		w.current = j
		w.answer(j, statusIOErr)
		return
	}
	w.issue(j)
}

func (w *worker) issue(j *job) {
	j.bio.End, j.bio.Private = bioEnded, j
	j.phase.Store(submitting)
	w.ring.session.export.Device.Submit(&j.bio)
	if !j.phase.CompareAndSwap(submitting, away) {
		w.ended(j)
	}
}

func bioEnded(b *blk.Bio) {
	j := b.Private.(*job)
	if !j.phase.CompareAndSwap(submitting, done) {
		j.worker.endedLate(j)
	}
}

// ended continues a job whose bio has ended. Answers of writes wait for the end of the
// round.
func (w *worker) ended(j *job) {
	switch {
	case j == &w.commit.flush:
		w.committed()
	case j.bio.Op.IsWrite() && j.bio.Op != blk.Flush && j.bio.Status() == blk.OK:
		w.commit.written = append(w.commit.written, j)
	default:
		w.settle(j, w.outcome(j))
	}
}

// settle answers a job, unless the guest's memory is broken.
func (w *worker) settle(j *job, status byte) {
	switch {
	case w.dead:
		w.recycle(j)
		return
	case w.moving && status != statusOK && w.inflight.of(w.ring.index) != nil:
		w.kept = append(w.kept, j)
		return
	}
	w.guard(func() error {
		w.current = j
		w.answer(j, status)
		return nil
	})
}

func (w *worker) outcome(j *job) byte {
	switch st := j.bio.Status(); {
	case st == blk.OK:
		return statusOK
	case st == blk.NotSupported || st == blk.Target:
		return statusUnsupported
	}
	return statusIOErr
}

// answer completes a request: it copies the data of a read if necessary, and stores
// the status.
func (w *worker) answer(j *job, status byte) {
	written := uint32(0)
	if status == statusOK && j.op == typeIn {
		written = uint32(length(j.data))
		if len(j.bounce) > 0 {
			p := j.bounce
			for _, to := range j.data {
				p = p[copy(to, p):]
			}
		}
	}
	w.finishWith(j, status, written)
}

func (w *worker) finishWith(j *job, status byte, written uint32) {
	j.status[0] = status
	w.markJob(j)
	w.finish(j, written+1)
}

// finish puts the chain back; written is the number of bytes written to it.
func (w *worker) finish(j *job, written uint32) {
	w.q.Put(j.chain.Head, written)
	w.recycle(j)
}
