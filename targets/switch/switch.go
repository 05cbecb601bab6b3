// Package switchtarget is the target "switch": each region of the device goes
// down one of several paths, as a table says (drivers/md/dm-switch.c).
//
//	switch PATHS REGION 0 DEVICE OFFSET [DEVICE OFFSET]…
//
// The manual is [Type]'s Doc. Unlike Linux 6.1, which loses them, the target
// passes flushes on, down every path.
//
// The region table is packed; I/O reads it with one atomic load. Lock order: mu,
// which serialises messages, is a leaf.
package switchtarget

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"syscall"

	"udm/blk"
	"udm/dm"
	"udm/targets/internal/leg"
)

// Type is the target type, to be given to dm.NewControl.
func Type() *dm.Type {
	return &dm.Type{Name: "switch", Version: [3]uint32{1, 1, 0}, New: construct, Doc: doc}
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
	paths  []leg.Leg
	table  *table

	mu sync.Mutex // held while a message changes table
}

// maxTable is the most memory that a region table may take, in bytes.
const maxTable = 1 << 30

func construct(t *dm.Target, args []string) (dm.Mapper, error) {
	s := &switcher{target: t}
	a := dm.NewArgs(args)
	n, err := s.parseShape(a)
	if err != nil {
		return nil, err
	}
	t.MaxIOLen = s.region
	for range n {
		if err := s.parsePath(t, a); err != nil {
			return nil, err
		}
	}
	regions := (t.Len-1)/s.region + 1
	s.table = newTable(regions, n)
	if s.table == nil {
		return nil, dm.Errorf(syscall.ENOMEM, "Cannot allocate region table")
	}
	// A discard may go down any path: all lead to the same disk.
	t.NumFlush, t.NumDiscard = int(n), 1
	return s, nil
}

func (s *switcher) parseShape(a *dm.Args) (n uint64, err error) {
	if n, err = a.Number(1, math.MaxUint32, "Invalid number of paths"); err != nil {
		return 0, err
	}
	if s.region, err = a.Number(1, math.MaxUint32, "Invalid region size"); err != nil {
		return 0, err
	}
	if _, err = a.Group(0, 0, "Invalid number of optional args"); err != nil {
		return 0, err
	}
	if uint64(a.Len()) != 2*n {
		return 0, dm.Errorf(syscall.EINVAL, "Incorrect number of path arguments")
	}
	return n, nil
}

func (s *switcher) parsePath(t *dm.Target, a *dm.Args) error {
	l, err := leg.Open(t, dm.Place{Device: a.Next()}, "Device lookup failed")
	if err != nil {
		return err
	}
	// kstrtoull: a plus sign is allowed, what does not fit is refused.
	if l.Start, err = dm.ParseUint64(a.Next()); err != nil {
		return dm.Because(err, "Invalid device starting offset")
	}
	s.paths = append(s.paths, l)
	return nil
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
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d 0", len(s.paths), s.region)
	for i := range s.paths {
		b.WriteString(" " + s.paths[i].String())
	}
	return b.String()
}

func (s *switcher) Areas() []dm.Area {
	as := make([]dm.Area, len(s.paths))
	for i := range as {
		as[i] = s.paths[i].Area(s.target.Len)
	}
	return as
}
