//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// inflight is memory of the front end in which the rings record what they have taken,
// for the server after this one. nil: none.
type inflight struct {
	*mapping
	rings, num int
}

// inflightLen is the length in bytes of the memory for a number of rings.
func inflightLen(rings, num int) int { return rings * virtq.InflightLen(num) }

func (s *session) checkInflight(d inflightDesc) error {
	switch {
	case d.num == 0 || d.num > virtq.MaxSize:
		return fmt.Errorf("inflight memory for rings of %d entries", d.num)
	case d.rings == 0 || int(d.rings) > len(s.rings):
		return fmt.Errorf("inflight memory for %d rings of %d", d.rings, len(s.rings))
	}
	return nil
}

// getInflight creates the memory and passes it to the front end.
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

// setInflight takes over the memory: new, or left by an earlier server.
func (s *session) setInflight(m *message, f fds) error {
	d := m.inflight
	if err := s.checkInflight(d); err != nil {
		return err
	}
	for _, r := range s.rings {
		if r.worker != nil {
			return errors.New("inflight memory for a running ring")
		}
	}
	if len(f) != 1 || d.size < uint64(inflightLen(int(d.rings), int(d.num))) || d.size > 1<<30 {
		return fmt.Errorf("inflight memory of %d bytes in %d files", d.size, len(f))
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

// of returns the part of a ring, or nil.
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
