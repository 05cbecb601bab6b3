//go:build linux

package vhost

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"udm/export"
)

// session is one front end's state. Messages are handled one at a time; only fail is
// used by several goroutines.
type session struct {
	export   *export.Export
	serial   string
	poll     time.Duration // as [Config].Poll
	log      *slog.Logger
	offered  uint64
	features uint64 // accepted by the front end
	protocol uint64
	status   uint64 // of the driver, as last set
	cache    cacheMode
	mem      *memory
	rings    []*ring
	backend  channel
	inflight *inflight // nil: not recorded
	pages    *mapping  // log of written pages; nil: none
	logged   notifier  // of the front end, of written pages
	known    bool      // the front end has had the device from this process before
}

// newSession creates a session. fail is called, from any goroutine, when a ring
// cannot continue.
func newSession(x *export.Export, cfg *Config, fail func(error)) *session {
	l := x.Device.Limits()
	s := &session{export: x, serial: cfg.Serial, poll: cfg.Poll, log: cfg.Log, offered: features(&l, x.ReadOnly || l.ReadOnly)}
	if cfg.Split {
		s.offered &^= featPacked
	}
	s.backend.socket.fd = -1
	s.logged = noNotifier
	s.mem, _ = newMemory(nil)
	for i := range cfg.Queues {
		s.rings = append(s.rings, newRing(s, i, fail))
	}
	return s
}

// close stops the rings, waits for their bios, and releases all resources.
func (s *session) close() {
	s.logged.unblock()
	for _, r := range s.rings {
		r.close()
	}
	s.logged.close()
	if s.pages != nil {
		s.pages.release()
	}
	s.mem.release()
	s.inflight.release()
	s.backend.set(noNotifier, false)
}

// fds are the file descriptors of a message. Whoever keeps one takes it out; the rest
// are closed.
type fds []int

func (f fds) take(i int) int {
	fd := f[i]
	f[i] = -1
	return fd
}

func (f fds) close() {
	for i := range f {
		closeFD(&f[i])
	}
}

func closeFD(fd *int) {
	if *fd >= 0 {
		_ = unix.Close(*fd)
	}
	*fd = -1
}

// receive handles a message and returns the answer, if there is one. An error ends
// the session. It owns f.
func (s *session) receive(h header, payload []byte, f fds) (answer, error) {
	defer f.close()
	m, err := decode(h, payload)
	if err == nil && len(f) > kinds[h.request].fds {
		err = fmt.Errorf("unexpected %d file descriptors", len(f))
	}
	if err == nil {
		err = handlers[h.request](s, m, f)
	}
	if err != nil {
		s.log.Debug("a vhost-user request was refused", "export", s.export.Name, "request", h.request, "reason", err)
	}
	k := kinds[h.request]
	switch asked := h.flags&needReply != 0 && s.protocol&protoReplyAck != 0; {
	case err == nil && k.reply != nil:
		return answer{reply(m, k.reply), m.file}, nil
	case asked && k.reply == nil:
		m := &message{request: h.request}
		if err != nil {
			m.value = 1
		}
		return answer{reply(m, word), nil}, nil
	case err != nil:
		return answer{}, fmt.Errorf("%v: %w", h.request, err)
	}
	return answer{}, nil
}

// answer is a message to send, and an optional file, which the sender closes.
type answer struct {
	bytes []byte
	file  *os.File
}

func reply(m *message, f *form) []byte {
	m.flags = version | flagReply
	return encode(m, f)
}

// handlers handle the requests. A handler for a request with a reply stores the reply
// in its message.
var handlers map[request]func(*session, *message, fds) error

func init() {
	nothing := func(*session, *message, fds) error { return nil }
	handlers = map[request]func(*session, *message, fds) error{
		getFeatures:         value(func(s *session) uint64 { return s.offered }),
		setFeatures:         (*session).setFeatures,
		setOwner:            nothing,
		resetOwner:          nothing,
		setMemTable:         (*session).setMemTable,
		setLogBase:          (*session).setLogBase,
		setLogFD:            (*session).setLogFD,
		setVringNum:         onRing((*ring).setNum),
		setVringAddr:        onRing((*ring).setAddr),
		setVringBase:        onRing((*ring).setBase),
		getVringBase:        onRing((*ring).getBase),
		setVringKick:        onRingFD((*ring).setKick),
		setVringCall:        onNotifier((*ring).setCall),
		setVringErr:         onNotifier((*ring).setErr),
		getProtocolFeatures: value(func(*session) uint64 { return protoOffered }),
		setProtocolFeatures: (*session).setProtocolFeatures,
		getQueueNum:         value(func(s *session) uint64 { return uint64(len(s.rings)) }),
		setVringEnable:      onRing((*ring).setEnable),
		setBackendReqFD:     (*session).setBackend,
		getConfig:           (*session).getConfig,
		setConfig:           (*session).setConfig,
		getInflightFD:       (*session).getInflight,
		setInflightFD:       (*session).setInflight,
		resetDevice:         (*session).resetDevice,
		getMaxMemSlots:      value(func(*session) uint64 { return maxSlots }),
		addMemReg:           (*session).addRegion,
		remMemReg:           (*session).removeRegion,
		setStatus:           (*session).setStatus,
		getStatus:           (*session).getStatus,
	}
}

func value(f func(*session) uint64) func(*session, *message, fds) error {
	return func(s *session, m *message, _ fds) error {
		m.value = f(s)
		return nil
	}
}

func (s *session) ring(i uint32) (*ring, error) {
	if uint64(i) >= uint64(len(s.rings)) {
		return nil, fmt.Errorf("there is no ring %d of %d", i, len(s.rings))
	}
	return s.rings[i], nil
}

func onRing(f func(*ring, *message) error) func(*session, *message, fds) error {
	return func(s *session, m *message, _ fds) error {
		r, err := s.ring(m.index)
		if err != nil {
			return err
		}
		return f(r, m)
	}
}

// The word of a request with an eventfd: the ring, and a flag that there is none.
const (
	ringMask = 0xff
	noFD     = 1 << 8
)

func onRingFD(f func(*ring, int) error) func(*session, *message, fds) error {
	return func(s *session, m *message, got fds) error {
		r, err := s.ring(uint32(m.value & ringMask))
		if err != nil {
			return err
		}
		if m.value&noFD != 0 {
			return f(r, -1)
		}
		if len(got) != 1 {
			return errors.New("the eventfd is missing")
		}
		return f(r, got.take(0))
	}
}

// onNotifier is onRingFD for requests with a notifier.
func onNotifier(f func(*ring, notifier)) func(*session, *message, fds) error {
	return onRingFD(func(r *ring, fd int) error {
		n := noNotifier
		if fd >= 0 {
			var err error
			if n, err = newNotifier(fd); err != nil {
				return err
			}
		}
		f(r, n)
		return nil
	})
}

func (s *session) setFeatures(m *message, _ fds) error {
	if extra := m.value &^ s.offered; extra != 0 {
		return fmt.Errorf("features %#x were not offered", extra)
	}
	for _, r := range s.rings {
		if r.worker != nil && r.worker.packed() != (m.value&featPacked != 0) {
			return errors.New("the kind of a running ring cannot be changed")
		}
	}
	s.features = m.value
	s.cache.accept(s.features)
	s.applyLog()
	for _, r := range s.rings {
		if m.value&featProtocol == 0 {
			r.between(func() { r.enabled = true })
		}
		if err := r.update(); err != nil {
			return err
		}
	}
	return nil
}

// Front ends echo bits that were not offered; they are ignored.
func (s *session) setProtocolFeatures(m *message, _ fds) error {
	s.protocol = m.value & protoOffered
	return nil
}

func (s *session) setBackend(_ *message, f fds) error {
	if len(f) != 1 {
		return errors.New("the socket is missing")
	}
	n, err := newNotifier(f.take(0))
	if err == nil && !n.socket {
		n.close()
		err = errors.New("the channel is not a socket")
	}
	if err != nil {
		return err
	}
	s.backend.set(n, s.protocol&protoConfig != 0)
	return nil
}

func (s *session) getConfig(m *message, _ fds) error {
	c := &m.config
	if c.offset > maxConfig || int(c.offset)+len(c.data) > maxConfig {
		return fmt.Errorf("invalid range of the config space: %d bytes at %d", len(c.data), c.offset)
	}
	l := s.export.Device.Limits()
	space := configSpace(&l, len(s.rings), s.cache.writeback())
	clear(c.data)
	if c.offset < configLen {
		copy(c.data, space[c.offset:])
	}
	return nil
}

// setConfig lets the guest choose the cache mode; nothing else can be written.
func (s *session) setConfig(m *message, _ fds) error {
	c := m.config
	if c.offset != writebackAt || len(c.data) != 1 || s.offered&featWriteback == 0 {
		return errors.New("only the cache mode in the config space can be written")
	}
	s.chooseCache(c.data[0] != 0)
	return nil
}

func (s *session) setMemTable(m *message, f fds) error {
	if len(f) != len(m.regions) {
		return fmt.Errorf("%d regions of guest memory, but %d files", len(m.regions), len(f))
	}
	var maps []*mapping
	for i, d := range m.regions {
		p, err := mapRegion(d, f[i])
		if err != nil {
			drop(maps)
			return err
		}
		maps = append(maps, p)
	}
	return s.setMemory(maps)
}

// drop unmaps regions that no memory uses.
func drop(maps []*mapping) {
	for _, p := range maps {
		p.users.Add(1)
		p.release()
	}
}

func (s *session) addRegion(m *message, f fds) error {
	if len(f) != 1 {
		return errors.New("the file is missing")
	}
	p, err := mapRegion(m.regions[0], f[0])
	if err != nil {
		return err
	}
	return s.setMemory(append(slices.Clone(s.mem.maps), p))
}

func (s *session) removeRegion(m *message, _ fds) error {
	d := m.regions[0]
	i := slices.IndexFunc(s.mem.maps, func(p *mapping) bool {
		return p.desc.guest == d.guest && p.desc.size == d.size && p.desc.user == d.user
	})
	if i < 0 {
		return errors.New("no such region of guest memory")
	}
	return s.setMemory(slices.Delete(slices.Clone(s.mem.maps), i, i+1))
}

// setMemory replaces guest memory, also under running rings: of all rings, or if it
// fails of none.
func (s *session) setMemory(maps []*mapping) error {
	mem, err := newMemory(maps)
	if err != nil {
		return err
	}
	for _, r := range s.rings {
		if err := r.fits(mem); err != nil {
			mem.release()
			return err
		}
	}
	for _, r := range s.rings {
		r.move(mem)
	}
	s.mem.release()
	s.mem = mem
	return nil
}
