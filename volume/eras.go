package volume

import (
	"strconv"
	"syscall"

	"udm/targets/era"
)

// An era device keeps which blocks were written in which era. The eras are its
// checkpoints: what has changed since checkpoint N is what was written in era N or later.

// maxEras is how many eras are listed as checkpoints, the newest ones.
const maxEras = 16

// eraLine is the table of an era device, nil for another object.
func (o *object) eraLine() *era.Line {
	if len(o.lines) != 1 || len(o.table) != 1 {
		return nil
	}
	l, _ := o.lines[0].(*era.Line)
	return l
}

// sinceEra is what an era device has changed since an era began.
func (m *Manager) sinceEra(o *object, since string) (*history, error) {
	n, ok := era.ParseEra(since)
	now, err := era.Era(o.dev)
	if err != nil {
		return nil, err
	}
	if !ok || n == 0 || n > now {
		return nil, refuse(syscall.EINVAL, "%s is an era device: its checkpoints are eras, 1 to %d, and not %q", o.name, now, since)
	}
	h := &history{o: o, of: identity(o), block: uint64(o.eraLine().BlockSectors), common: o.sectors}
	h.next = func(sector, sectors uint64) (s span, err error) {
		list, end, err := era.WrittenSince(o.dev, n, sector, sectors)
		s.end = end
		for _, e := range list {
			if e.Data {
				s.add(e, sector, false)
			}
		}
		return s, err
	}
	return h, nil
}

// eras are the checkpoints of an era device, the running era last.
func (m *Manager) eras(o *object) (names []string, err error) {
	now, err := era.Era(o.dev)
	for n := max(1, int64(now)-maxEras+1); n <= int64(now); n++ {
		names = append(names, strconv.FormatInt(n, 10))
	}
	return names, err
}
