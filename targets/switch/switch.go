// Package switchtarget is the target "switch": it sends the I/O of each region of the
// device down one of several paths, which a table of regions selects
// (drivers/md/dm-switch.c).
//
//	switch PATHS REGION 0 DEVICE OFFSET [DEVICE OFFSET]…
//
// The manual is [Type]'s Doc. The target sends flushes down every path; Linux 6.1 loses
// them.
//
// The table of regions is packed; I/O reads it with one atomic load. Lock order: mu,
// which serialises messages, is a leaf.
package switchtarget

import (
	"sync"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/segment"
)

// Type returns the target type, for dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "switch", Version: [3]uint32{1, 1, 0}, New: construct, Parse: dm.Parser(ParseLine), Doc: doc}
}

const doc = `switch: each region goes down one of several paths

Table:
  switch PATHS REGION 0 DEVICE OFFSET [DEVICE OFFSET]...
    PATHS    how many paths there are
    REGION   sectors in a region
    0        the number of optional arguments; there are none
    DEVICE   a device below, PATHS of them
    OFFSET   the sector of DEVICE where the target's first sector lies
  At first region 0 goes down path 0, region 1 down path 1, and so on in turn.

Status (dmsetup status):
  nothing

Messages:
  set_region_mappings ITEM...
    [REGION]:PATH   the region goes down the path; without REGION it is the one
                    after the region set last
    Rn,m            the next m regions are like those n before them
    All numbers are hexadecimal.

Example: two paths to one disk, regions of 64 KiB, all down the second path
  0 2097152 switch 2 128 0 /srv/a.img 0 /srv/b.img 0
  dmsetup message NAME 0 set_region_mappings 0:1 R1,3fff
`

type switcher struct {
	target *dm.Target
	region uint64 // sectors
	paths  []segment.Segment
	table  *table

	mu sync.Mutex // held while a message changes table
}

// maxTable is the most memory that a table of regions may take, in bytes.
const maxTable = 1 << 30

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	line, wrong := ParseLine(args)
	if line == nil {
		return nil, wrong
	}
	s := &switcher{target: t, region: uint64(line.Region)}
	t.MaxIOLen = s.region
	for _, p := range line.Paths {
		l, err := segment.Open(t, p, "Device lookup failed")
		if err != nil {
			return nil, err
		}
		s.paths = append(s.paths, l)
	}
	if wrong != nil {
		return nil, wrong
	}
	n := uint64(len(s.paths))
	regions := (t.Len-1)/s.region + 1
	s.table = newTable(regions, n)
	if s.table == nil {
		return nil, dm.Errorf(syscall.ENOMEM, "Cannot allocate region table")
	}
	// One clone of a discard is enough: all paths lead to the same disk.
	t.NumFlush, t.NumDiscard = int(n), 1
	return s, nil
}

func (s *switcher) Map(c *dm.Clone) dm.Outcome {
	path := uint64(c.Num)
	if c.Op != blk.Flush {
		path = s.table.get(c.Offset() / s.region)
	}
	s.paths[path].Map(c)
	return dm.Remapped
}

func (s *switcher) Close() {}

func (s *switcher) Status(kind dm.StatusKind, _ dm.StatusFlags) string {
	if kind == dm.Info {
		return ""
	}
	l := &Line{Region: uint32(s.region)}
	for i := range s.paths {
		l.Paths = append(l.Paths, s.paths[i].Place())
	}
	return l.String()
}

func (s *switcher) Areas() []dm.Area {
	as := make([]dm.Area, len(s.paths))
	for i := range as {
		as[i] = s.paths[i].Area(s.target.Len)
	}
	return as
}
