//go:build linux

package vhost

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// inflight is memory of the front end in which the rings record what they have taken,
// for the server after this one. If the front end provides none, it is memory of this server,
// which only a server that this one hands over to has.
//
//	a part for each ring   see virtq.InflightLen
//	tail                   process 16, cache mode 1, unused 47
//
// Front ends do not look into it.
type inflight struct {
	*mapping
	rings, num int
	tail       []byte // nil: the memory may go away
	own        bool   // memory of this server
}

const (
	tailLen      = 64
	tailCache    = 16
	cacheBack    = 0
	cacheThrough = 1
)

// thisProcess identifies this process.
var thisProcess = func() (id [16]byte) {
	_, _ = rand.Read(id[:]) // cannot fail
	return id
}()

// ringsLen is the length in bytes of the parts of a number of rings.
func ringsLen(rings, num int) int { return rings * virtq.InflightLen(num) }

// inflightLen is the length in bytes of the memory for a number of rings.
func inflightLen(rings, num int) int { return ringsLen(rings, num) + tailLen }

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
	d.size, d.offset = uint64(inflightLen(int(d.rings), int(d.num))), 0
	file, err := inflightFile(d.size)
	m.file = file
	return err
}

func inflightFile(size uint64) (*os.File, error) {
	fd, err := unix.MemfdCreate("udm-inflight", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "inflight")
	if err = file.Truncate(int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// ownInflight returns memory of this server for a number of rings of any size, of which only
// used pages exist.
func ownInflight(rings int) (*inflight, error) {
	size := uint64(inflightLen(rings, virtq.MaxSize))
	file, err := inflightFile(size)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p, err := mapRegion(regionDesc{size: size}, int(file.Fd()))
	if err != nil {
		return nil, err
	}
	p.users.Store(1)
	x := newInflight(p, rings, virtq.MaxSize)
	x.own = true
	copy(x.tail, thisProcess[:])
	return x, nil
}

// begins prepares the part of a ring that starts. What memory of this server has is of
// this run of the ring only if it goes on after a handover.
func (x *inflight) begins(r *ring) {
	if x != nil && x.own && !r.goesOn {
		clear(x.of(r.index)[:virtq.InflightLen(r.num)])
	}
	r.goesOn = false
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
	x := newInflight(p, int(d.rings), int(d.num))
	if err := s.takeOver(x); err != nil {
		x.release()
		return err
	}
	s.inflight.release()
	s.inflight = x
	return nil
}

func newInflight(p *mapping, rings, num int) *inflight {
	x := &inflight{mapping: p, rings: rings, num: num}
	if p.Fixed {
		x.tail = p.Mem[ringsLen(rings, num):][:tailLen]
	}
	return x
}

// errForgotten refuses a guest that would miss what it has written.
var errForgotten = errors.New("the guest has used this disk when another process had it in its memory, which has ended: what was written is gone; restart the guest")

// takeOver reads what an earlier server has left in the tail, and makes it this server's.
func (s *session) takeOver(x *inflight) error {
	if x.tail == nil {
		return nil
	}
	switch before := [16]byte(x.tail); {
	case before == [16]byte{}:
		x.setCache(s.cache.writeback())
	case before != thisProcess && s.export.Device.Limits().ProcessMemory:
		return errForgotten
	default:
		s.known = before == thisProcess
		s.cache.choose(x.tail[tailCache] != cacheThrough)
	}
	copy(x.tail, thisProcess[:])
	return nil
}

// setCache notes the cache mode for the next server.
func (x *inflight) setCache(writeback bool) {
	if x == nil || x.tail == nil {
		return
	}
	x.tail[tailCache] = cacheThrough
	if writeback {
		x.tail[tailCache] = cacheBack
	}
}

// of returns the part of a ring, or nil.
func (x *inflight) of(ring int) []byte {
	if x == nil || ring >= x.rings {
		return nil
	}
	n := virtq.InflightLen(x.num)
	return x.Mem[ring*n:][:n]
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
