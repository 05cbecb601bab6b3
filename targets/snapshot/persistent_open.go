package snapshot

import (
	"bytes"
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/kcopyd"
)

// These run in a snapshot's constructor and may wait for I/O.

const defaultChunk = 16 << 10 / blk.SectorSize

// readPiece is how many bytes of an area are read at once.
const readPiece = 512 << 10

func (p *persistent) open() (valid bool, err error) {
	if p.chunk == 0 {
		p.geometry = newGeometry(max(defaultChunk, uint64(p.cow.Limits().LogicalBlock)/blk.SectorSize))
	}
	buf := make([]byte, max(blk.SectorSize, p.cow.Limits().LogicalBlock))
	if err := p.readAt(buf, 0); err != nil {
		return false, err
	}
	h, fresh, err := parseHeader(buf)
	switch {
	case err != nil:
		return false, err
	case fresh:
		return true, p.create()
	case h.version != diskVersion:
		return false, dm.Errorf(syscall.EINVAL, "unable to handle snapshot disk version %d", h.version)
	}
	if err := checkChunkSize(uint64(h.sectors), p.cow); err != nil {
		return false, err
	}
	p.geometry = newGeometry(uint64(h.sectors))
	p.valid.Store(h.valid)
	p.found = true
	return h.valid, nil
}

func (p *persistent) unflushed() bool {
	return p.found && p.writable && p.cow.Limits().VolatileCache
}

func (p *persistent) flush(done func(ok bool)) {
	b := &blk.Bio{Op: blk.Flush}
	b.End = func(b *blk.Bio) { done(b.Status() == blk.OK) }
	p.dev.Submit(b)
}

func (p *persistent) readAt(buf []byte, sector uint64) error {
	if sector+uint64(len(buf))/blk.SectorSize > p.cow.Limits().Size {
		return dm.Errorf(syscall.EIO, "snapshot store ends before sector %d", sector)
	}
	if err := blk.ReadSectors(p.env, p.dev, buf, sector); err != nil {
		return dm.Errorf(blk.StatusOf(err).Errno(), "snapshot store cannot be read")
	}
	return nil
}

// create creates an empty store. It writes zeroes first, so that the header always
// has an empty list behind it.
func (p *persistent) create() error {
	if 2*p.chunk > p.cow.Limits().Size {
		return dm.Errorf(syscall.EIO, "device is too small for a snapshot store")
	}
	job := kcopyd.Job{Sectors: 2 * p.chunk, NoUnmap: true}
	job.SetTo(kcopyd.Place{Dev: p.dev})
	if err := p.await(func(done func(blk.Status)) {
		job.Done = func(j *kcopyd.Job) { done(jobStatus(j)) }
		p.kc.Zero(&job)
	}); err != nil {
		return err
	}
	return p.writeNow(p.headerBlock(true), 0)
}

// await runs start and waits until it calls done.
func (p *persistent) await(start func(done func(blk.Status))) error {
	var ended atomic.Pointer[blk.Status]
	w := p.env.NewWait()
	start(func(st blk.Status) {
		ended.Store(&st)
		w.Wake()
	})
	w.Until(func() bool { return ended.Load() != nil })
	if st := *ended.Load(); st != blk.OK {
		return dm.Errorf(st.Errno(), "snapshot store cannot be written")
	}
	return nil
}

// writeNow writes data durably and waits for it.
func (p *persistent) writeNow(data []byte, sector uint64) error {
	return p.await(func(done func(blk.Status)) {
		var d durable
		d.init(p, done)
		d.write(data, sector)
	})
}

// read passes every recorded exception to add.
func (p *persistent) read(add func(old, new uint64) error) error {
	p.area = make([]byte, p.chunk*blk.SectorSize)
	last := uint64(1) // of the header and area 0
	for a := uint64(0); ; a++ {
		if err := p.readArea(a); err != nil {
			return err
		}
		n, err := p.parseArea(p.area, p.cow.Limits().Size/p.chunk, func(old, new uint64) error {
			last = max(last, new)
			return add(old, new)
		})
		if err != nil {
			return err
		}
		p.current.Store(a)
		if p.committed = n; n < p.perArea {
			break
		}
	}
	p.written = p.committed
	p.startAt(p.dataNumber(last + 1))
	return p.wipe()
}

// readArea reads an area from disk. It does not write to memory that stays zero: an
// area may be as large as 1 GiB.
func (p *persistent) readArea(a uint64) error {
	sector := p.areaChunk(a) * p.chunk
	buf := make([]byte, min(readPiece, len(p.area)))
	for at := 0; at < len(p.area); at += len(buf) {
		if err := p.readAt(buf, sector+uint64(at)/blk.SectorSize); err != nil {
			return err
		}
		if to := p.area[at : at+len(buf)]; !bytes.Equal(to, buf) {
			copy(to, buf)
		}
	}
	return nil
}

// wipe clears entries behind the end of the list, left by a torn write. They would
// become valid again when the list grows up to them.
func (p *persistent) wipe() error {
	tail := p.area[p.committed*entrySize:]
	if !p.writable || len(bytes.TrimLeft(tail, "\x00")) == 0 {
		return nil
	}
	clear(tail)
	data, sector := p.entries(p.committed, p.perArea)
	return p.writeNow(data, sector)
}
