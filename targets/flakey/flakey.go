// Package flakey is the target "flakey": a device that fails from time to time
// (drivers/md/dm-flakey.c).
//
//	flakey DEVICE OFFSET UP DOWN [COUNT FEATURE…]
//
// The manual is [Type]'s Doc. No field changes after construction, so there is no lock.
// Writes are corrupted in a copy of their data: the submitter's buffers do not change.
package flakey

import (
	"time"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "flakey", Version: [3]uint32{1, 5, 0}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `flakey: a device that fails now and then

Table:
  flakey DEVICE OFFSET UP DOWN [COUNT FEATURE...]
    DEVICE   the device below
    OFFSET   the sector of DEVICE where the target's first sector lies
    UP       seconds that it works, from the loading of the table on
    DOWN     seconds that it fails then; after them it works again, and so on
    COUNT    how many words follow, 0 to 6, with features of later kernels 11
  While it is down all I/O fails, unless features say otherwise:
    drop_writes    writes, flushes and discards succeed without happening;
                   reads work
    error_writes   writes, flushes and discards fail; reads work
    corrupt_bio_byte NTH r|w VALUE FLAGS
                   I/O works, but byte NTH, from 1 on, of each read (r) or each
                   write (w) is VALUE; only of I/O that has all of FLAGS, the
                   kernel's bi_opf bits as a number (131072: FUA); 0: of all
  and as in Linux 6.5 and later:
    error_reads    reads fail; writes work, unless error_writes or drop_writes
                   is there, too
    random_read_corrupt P, random_write_corrupt P
                   I/O works, but with a chance of P in 1000000000 a byte
                   anywhere in a read or a write gets any value
  drop_writes and error_writes exclude each other. What fails or is dropped
  cannot be corrupted, too.

Status (dmsetup status):
  nothing

Messages:
  none

Example: works for a minute, then loses all writes for ten seconds
  0 2097152 flakey /srv/a.img 0 60 10 1 drop_writes
`

type flakey struct {
	line    *Line
	segment segment.Segment
	len     uint64 // sectors
	now     func() time.Duration
	random  func() uint64
	start   time.Duration // when the table was loaded
}

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	l, err := ParseLine(args)
	if err != nil {
		return nil, err
	}
	f := &flakey{line: l, len: t.Len, now: t.Env().Now, random: t.Env().Uint64, start: t.Env().Now()}
	t.NumFlush, t.NumDiscard = 1, 1
	f.segment, err = segment.Open(t, l.Place, "Device lookup failed")
	return f, err
}

func (f *flakey) isDown() bool {
	seconds := uint64((f.now() - f.start) / time.Second)
	return seconds%uint64(f.line.Up+f.line.Down) >= uint64(f.line.Up)
}

// sent is the target's data for a clone: what EndIO has to know about it.
type sent struct {
	down    bool // sent while the target was down; a read may have to be corrupted
	pos     blk.Position
	sectors uint64
}

func (f *flakey) NewPerIO() any { return new(sent) }

func (f *flakey) Map(c *dm.Clone) dm.Outcome {
	s := c.PerIO.(*sent)
	s.down = false
	if f.isDown() {
		if out, done := f.mapDown(c); done {
			return out
		}
		s.down, s.pos, s.sectors = true, c.Position(), c.Sectors
	}
	f.segment.Map(c)
	return dm.Remapped
}

// mapDown handles a clone while the target is down. If done, the clone is not sent to
// the device.
func (f *flakey) mapDown(c *dm.Clone) (out dm.Outcome, done bool) {
	switch {
	case f.line.all(), c.Op == blk.Read && f.line.ErrorReads:
		return dm.Kill, true
	case c.Op == blk.Read:
	case f.line.DropWrites:
		c.Complete(blk.OK)
		return dm.Submitted, true
	case f.line.ErrorWrites:
		c.Complete(blk.IOErr)
		return dm.Submitted, true
	case c.Op == blk.Write:
		f.spoilWrite(c)
	}
	return 0, false
}

// EndIO corrupts the data of reads.
func (f *flakey) EndIO(c *dm.Clone, st blk.Status) (blk.Status, dm.EndOutcome) {
	s := c.PerIO.(*sent)
	if st == blk.OK && s.down && c.Op == blk.Read {
		c.Seek(s.pos, s.sectors)
		f.spoilRead(c)
	}
	return st, dm.EndDone
}

func (f *flakey) Close() {}

func (f *flakey) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return ""
	}
	l := *f.line
	l.Place = f.segment.Place()
	return l.String()
}

func (f *flakey) Areas() []dm.Area { return []dm.Area{f.segment.Area(f.len)} }
