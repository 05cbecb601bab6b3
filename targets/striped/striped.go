// Package striped is the target "striped": it distributes chunks over several
// devices in turn (drivers/md/dm-stripe.c).
//
//	striped STRIPES CHUNK DEVICE OFFSET [DEVICE OFFSET]…
//
// The manual is [Type]'s Doc. Sector s of the target lies in chunk s/CHUNK; chunk c is
// chunk c/STRIPES of stripe c mod STRIPES. A flush, discard or write-zeroes arrives once
// for each stripe, with the whole range; Clone.Num is the stripe.
//
// Only the error counters change after construction, so there is no lock.
package striped

import (
	"sync/atomic"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "striped", Version: [3]uint32{1, 6, 0}, New: construct,
		Parse: dm.Parser(ParseLine), ParseStatus: dm.StatusParser(ParseStatus), Doc: doc}
}

const doc = `striped: chunks go to several devices in turn (RAID 0)

Table:
  striped STRIPES CHUNK DEVICE OFFSET [DEVICE OFFSET]...
    STRIPES  how many devices there are
    CHUNK    sectors that go to one device before the next has its turn
    DEVICE   a device below, STRIPES of them
    OFFSET   the sector of DEVICE where its stripe begins
  The length must be a multiple of STRIPES times CHUNK.

Status (dmsetup status):
  STRIPES DEVICE... 1 HEALTH
    HEALTH   one letter for each device: A alive, D an I/O has failed on it
  The first 14 failures of a device raise an event each.

Messages:
  none

Example: two disks of 1 GiB, 64 KiB each in turn
  0 4194304 striped 2 128 /srv/a.img 0 /srv/b.img 0
`

// eventLimit: the errors of a stripe raise events until they reach this number.
const eventLimit = 15

type stripe struct {
	segment.Segment
	errors atomic.Uint32
}

type striped struct {
	target  *dm.Target
	chunk   uint64 // sectors
	width   uint64 // sectors of each stripe
	stripes []stripe
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	n, chunk, err := parseShape(args)
	if err != nil {
		return nil, err
	}
	s := &striped{target: t, chunk: uint64(chunk), width: t.Len / uint64(n)}
	switch {
	case t.Len%uint64(n) != 0:
		return nil, dm.Errorf(syscall.EINVAL, "Target length not divisible by number of stripes")
	case s.width%s.chunk != 0:
		return nil, dm.Errorf(syscall.EINVAL, "Target length not divisible by chunk size")
	}
	l, wrong := parseStripes(args, n, chunk)
	s.stripes = make([]stripe, len(l.Stripes))
	for i, p := range l.Stripes {
		if s.stripes[i].Segment, err = segment.Open(t, p, "Device lookup failed"); err != nil {
			return nil, dm.Because(err, notStripe)
		}
	}
	t.MaxIOLen = s.chunk
	t.NumFlush, t.NumDiscard, t.NumWriteZeroes = int(n), int(n), int(n)
	return s, wrong
}

func (s *striped) Map(c *dm.Clone) dm.Outcome {
	switch c.Op {
	case blk.Flush:
		c.SetDev(s.stripes[c.Num].Dev)
		return dm.Remapped
	case blk.Discard, blk.WriteZeroes:
		return s.mapRange(c)
	}
	i, sector := s.place(c.Offset())
	s.send(c, i, sector)
	return dm.Remapped
}

func (s *striped) send(c *dm.Clone, stripe, sector uint64) {
	st := &s.stripes[stripe]
	c.SetDev(st.Dev)
	c.Sector = st.Start + sector
}

// place returns the stripe of a sector and the sector's offset within it.
func (s *striped) place(off uint64) (stripe, sector uint64) {
	n := uint64(len(s.stripes))
	chunk := off / s.chunk
	return chunk % n, chunk/n*s.chunk + off%s.chunk
}

// edge returns the first sector of a stripe that lies at the target's offset off or
// after it.
func (s *striped) edge(off, stripe uint64) uint64 {
	at, sector := s.place(off)
	if at == stripe {
		return sector
	}
	sector -= sector % s.chunk
	if stripe < at {
		sector += s.chunk
	}
	return sector
}

// mapRange maps the part of the range that lies on stripe Num. If there is none, the
// clone is complete.
func (s *striped) mapRange(c *dm.Clone) dm.Outcome {
	i, off := uint64(c.Num), c.Offset()
	begin, end := s.edge(off, i), s.edge(off+c.Sectors, i)
	if begin >= end {
		c.Complete(blk.OK)
		return dm.Submitted
	}
	s.send(c, i, begin)
	c.Sectors = end - begin
	return dm.Remapped
}

// EndIO counts an error for every stripe on the device that had it.
func (s *striped) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	if st == blk.OK || st == blk.NotSupported || c.Flags&blk.Readahead != 0 {
		return st, dm.EndDone
	}
	for i := range s.stripes {
		if p := &s.stripes[i]; p.Dev.Device == c.Dev && p.errors.Add(1) < eventLimit {
			s.target.Event()
		}
	}
	return st, dm.EndDone
}

func (s *striped) Close() {}

func (s *striped) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.TableText {
		return s.line().String()
	}
	st := &Status{}
	for i := range s.stripes {
		st.Stripes = append(st.Stripes, Stripe{s.stripes[i].Dev.Name(), s.stripes[i].errors.Load() > 0})
	}
	return st.String()
}

func (s *striped) line() *Line {
	l := &Line{Chunk: uint32(s.chunk)}
	for i := range s.stripes {
		l.Stripes = append(l.Stripes, s.stripes[i].Place())
	}
	return l
}

func (s *striped) Areas() []dm.Area {
	as := make([]dm.Area, len(s.stripes))
	for i := range as {
		as[i] = s.stripes[i].Area(s.width)
	}
	return as
}

// Hint sets the preferred sizes of I/O: a chunk at least, a row of chunks at best.
func (s *striped) Hint(l *blk.Limits) {
	chunk := uint32(s.chunk << blk.SectorShift)
	l.MinIO = max(chunk, l.LogicalBlock, l.PhysicalBlock)
	l.OptIO = chunk * uint32(len(s.stripes))
}
