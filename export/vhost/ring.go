//go:build linux

package vhost

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"udm/export/internal/virtq"
)

// ring is a ring as seen by the session.
//
//	         num, addr, kick and base, in any order
//	stopped ───────────────────────────────────────► running (a worker has it)
//	   ▲                                                │
//	   └────── GET_VRING_BASE, a new kick, the end ─────┘
//
// A running ring takes requests while it is enabled.
type ring struct {
	session *session
	index   int
	fail    func(error)

	num     int // 0: unknown
	addr    ringAddr
	hasAddr bool
	base    uint32 // as virtq.Config.Next
	kick    int    // -1: none
	call    notifier
	err     notifier
	dirty   dirty
	enabled bool
	begun   bool    // it has started from the beginning in this session; used by its workers
	goesOn  bool    // when it starts next, it goes on after a handover
	worker  *worker // while it runs
}

func newRing(s *session, i int, fail func(error)) *ring {
	return &ring{session: s, index: i, fail: fail, kick: -1, call: noNotifier, err: noNotifier}
}

func (r *ring) setNum(m *message) error {
	if err := virtq.CheckSize(int(m.num), r.packed()); err != nil {
		return err
	}
	if r.worker != nil && r.num != int(m.num) {
		return errors.New("the size of a running ring cannot be changed")
	}
	r.num = int(m.num)
	return r.update()
}

func (r *ring) setBase(m *message) error {
	if r.worker != nil {
		return errors.New("the position of a running ring cannot be changed")
	}
	r.base = m.num
	return nil
}

// setAddr sets the addresses of a ring. Those of a running ring may only be repeated.
func (r *ring) setAddr(m *message) error {
	a := m.addr
	a.log = 0
	if r.worker != nil && a != r.addr {
		return errors.New("the addresses of a running ring cannot be changed")
	}
	if m.num&^1 != 0 {
		return fmt.Errorf("invalid ring flags %#x", m.num)
	}
	if r.num != 0 {
		if err := r.check(r.session.mem, a); err != nil {
			return err
		}
	}
	r.addr, r.hasAddr = a, true
	return r.update()
}

// getBase stops the ring and returns its position.
func (r *ring) getBase(m *message) error {
	r.stop()
	closeFD(&r.kick)
	r.call.close()
	m.num = r.base
	return nil
}

func (r *ring) setKick(fd int) error {
	if fd < 0 {
		return errors.New("a ring without a kick eventfd is not supported")
	}
	if !isEventFD(fd) {
		closeFD(&fd)
		return errors.New("the file is not an eventfd")
	}
	r.stop()
	closeFD(&r.kick)
	r.kick = fd
	return r.update()
}

// setCall replaces the call eventfd and notifies once: the front end may have missed
// a notification by the old one.
func (r *ring) setCall(n notifier) {
	r.between(func() {
		r.call.close()
		r.call = n
		n.tell()
	})
}

func (r *ring) setErr(n notifier) {
	r.between(func() {
		r.err.close()
		r.err = n
	})
}

func (r *ring) setEnable(m *message) error {
	if m.num > 1 {
		return fmt.Errorf("invalid ring enable value %d", m.num)
	}
	r.between(func() { r.enabled = m.num == 1 })
	return r.update()
}

// between runs f while the ring takes no requests.
func (r *ring) between(f func()) {
	if r.worker != nil {
		r.worker.do(f)
	} else {
		f()
	}
}

// fits returns an error if a running ring cannot continue in another memory.
func (r *ring) fits(mem *memory) error {
	if r.worker == nil {
		return nil
	}
	return r.check(mem, r.addr)
}

// packed reports which kind of ring the front end has accepted.
func (r *ring) packed() bool { return r.session.features&featPacked != 0 }

func (r *ring) check(mem *memory, a ringAddr) error {
	return mem.rings(a, r.num, r.packed()).Check(r.num, r.packed())
}

// move moves the ring to another memory, which it must fit.
func (r *ring) move(mem *memory) {
	if r.worker != nil {
		r.worker.do(func() { r.worker.move(mem) })
	}
}

// update starts the ring once everything it needs is known.
func (r *ring) update() error {
	if r.worker != nil || r.num == 0 || !r.hasAddr || r.kick < 0 || !r.enabled {
		return nil
	}
	if err := r.check(r.session.mem, r.addr); err != nil {
		return err
	}
	own, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	r.session.record(r)
	r.worker = newWorker(r, own)
	go r.worker.run()
	return nil
}

// record has requests of a ring recorded, if the front end has not provided for that.
func (s *session) record(r *ring) {
	if s.inflight == nil {
		x, err := ownInflight(len(s.rings))
		if err != nil {
			s.log.Warn("requests of a virtual machine that wait while the daemon is replaced will fail", "export", s.export.Name, "reason", err)
		}
		s.inflight = x
	}
	s.inflight.begins(r)
}

// stop stops the worker and waits for its bios.
func (r *ring) stop() {
	if r.worker == nil {
		return
	}
	r.worker.do(func() { r.worker.stopping = true })
	<-r.worker.done
	closeFD(&r.worker.own)
	r.base = r.worker.position
	r.worker = nil
}

// reset stops the ring and forgets how it was set up, but not where it stands: front ends
// that pause a guest ask for that afterwards.
func (r *ring) reset() {
	r.stop()
	closeFD(&r.kick)
	r.call.close()
	r.err.close()
	r.num, r.hasAddr, r.enabled = 0, false, false
}

func (r *ring) close() {
	r.call.unblock()
	r.err.unblock()
	r.stop()
	closeFD(&r.kick)
	r.call.close()
	r.err.close()
}
