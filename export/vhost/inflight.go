//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// inflight is memory of the front end's where the rings note what they have taken, so
// that the server after this one does not lose it. nil: there is none.
type inflight struct {
	*mapping
	rings, num int
}

// inflightLen is the length of the memory of some rings.
func inflightLen(rings, num int) int { return rings * virtq.InflightLen(num) }

func (s *session) checkInflight(d inflightDesc) error {
	switch {
	case d.num == 0 || d.num > virtq.MaxSize:
		return fmt.Errorf("notes for rings of %d entries", d.num)
	case d.rings == 0 || int(d.rings) > len(s.rings):
		return fmt.Errorf("notes for %d rings of %d", d.rings, len(s.rings))
	}
	return nil
}

// getInflight makes the memory, and gives it to the front end.
func (s *session) getInflight(m *message, _ fds) error {
	d := &m.inflight
	if err := s.checkInflight(*d); err != nil {
		return err
	}
	fd, err := unix.MemfdCreate("udm-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), "inflight")
	d.size, d.offset = uint64(inflightLen(int(d.rings), int(d.num))), 0
	if err = file.Truncate(int64(d.size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		file.Close()
		return err
	}
	m.file = file
	return nil
}

// setInflight takes the memory: fresh, or what an earlier server has left.
func (s *session) setInflight(m *message, f fds) error {
	d := m.inflight
	if err := s.checkInflight(d); err != nil {
		return err
	}
	for _, r := range s.rings {
		if r.worker != nil {
			return errors.New("notes for a ring that runs")
		}
	}
	if len(f) != 1 || d.size < uint64(inflightLen(int(d.rings), int(d.num))) || d.size > 1<<30 {
		return fmt.Errorf("notes in %d bytes and %d files", d.size, len(f))
	}
	p, err := mapRegion(regionDesc{size: d.size, offset: d.offset}, f[0])
	if err != nil {
		return err
	}
	p.users.Store(1)
	s.inflight.release()
	s.inflight = &inflight{p, int(d.rings), int(d.num)}
	return nil
}

// of is the part of a ring; nil: it has none.
func (x *inflight) of(ring int) (*virtq.Inflight, error) {
	if x == nil || ring >= x.rings {
		return nil, nil
	}
	n := virtq.InflightLen(x.num)
	return virtq.NewInflight(x.Mem[ring*n:][:n], x.num)
}

func (x *inflight) hold() *inflight {
	if x != nil {
		x.users.Add(1)
	}
	return x
}

func (x *inflight) release() {
	if x != nil {
		x.mapping.release()
	}
}

func (x *inflight) holds(addr uintptr) bool { return x != nil && x.mapping.holds(addr) }
