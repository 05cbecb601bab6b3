package vhost

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// handing is a Hand under way. Server.mu guards what is not constant.
type handing struct {
	ctx   context.Context
	taken bool // the reader of messages has seen it
	moved *Moved
	err   error // why the front end is served on
}

// Hand takes no more front ends and requests, and returns what another server goes on with
// when the requests under way have ended. If ctx ends first, it serves on. The result is nil
// if it is closed, or was handed over.
func (s *Server) Hand(ctx context.Context) (*Moved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, nil
	}
	h := &handing{ctx: ctx, moved: new(Moved)}
	s.handing = h
	defer context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.changed.Broadcast()
	})()
	err := s.stopAcceptingLocked(h.moved)
	if err == nil {
		err = s.awaitFrontEndLocked(h)
	}
	s.handing = nil
	s.closing = err == nil
	s.changed.Broadcast()
	if err == nil {
		return h.moved, nil
	}
	h.moved.Close()
	for l := range s.listeners {
		l.SetUnlinkOnClose(true)
		_ = l.SetDeadline(time.Time{})
	}
	return nil, err
}

// interrupted is a deadline.
var interrupted = time.Unix(1, 0)

// stopAcceptingLocked leaves new front ends to the next server.
func (s *Server) stopAcceptingLocked(m *Moved) error {
	for l := range s.listeners {
		f, err := l.File()
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		m.Listeners = append(m.Listeners, f)
		_ = l.SetDeadline(interrupted)
	}
	for s.accepting > 0 {
		s.changed.Wait()
	}
	return nil
}

// awaitFrontEndLocked waits until the front end has left, and taken its state along.
func (s *Server) awaitFrontEndLocked(h *handing) error {
	if s.conn != nil && s.reading {
		_ = s.conn.SetReadDeadline(interrupted)
	}
	for s.conn != nil && h.err == nil && (h.taken || h.ctx.Err() == nil) {
		s.changed.Wait()
	}
	switch {
	case s.conn == nil:
		return nil
	case h.err != nil:
		return h.err
	}
	return fmt.Errorf("a virtual machine is in the middle of a message: %w", context.Cause(h.ctx))
}

// errInterrupted is the error of a reader between two messages.
var errInterrupted = errors.New("vhost: interrupted")

// awaitMessage notes that a message may begin, until when there is no deadline.
func (s *Server) awaitMessage(c *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handing != nil {
		return errInterrupted
	}
	s.reading = true
	return c.SetReadDeadline(time.Time{})
}

// messageBegins notes that the rest of a message must come, which Hand does not interrupt.
func (s *Server) messageBegins(c *net.UnixConn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = false
	return c.SetReadDeadline(time.Now().Add(s.cfg.StallTimeout))
}

// handOver hands over a session, and reports whether it is gone. If not, Hand has been
// called off.
func (s *Server) handOver(c *net.UnixConn, session *session) bool {
	h := s.seen()
	if h == nil {
		return false
	}
	err := session.hand(h.ctx, c, h.moved)
	if err == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	h.err = err
	s.changed.Broadcast()
	for s.handing == h {
		s.changed.Wait()
	}
	return false
}

func (s *Server) seen() *handing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.handing != nil {
		s.handing.taken = true
	}
	return s.handing
}

// hand stops the rings, and leaves all that another session goes on with. After an error
// they run.
func (s *session) hand(ctx context.Context, c *net.UnixConn, m *Moved) error {
	if err := s.pause(ctx); err != nil {
		return err
	}
	socket, err := c.File()
	if err != nil {
		s.begin()
		return err
	}
	m.Files = append(m.Files, socket)
	m.FrontEnd = &FrontEnd{Socket: 1, Channel: m.keep(s.backend.leave()), Features: s.features, Protocol: s.protocol, Status: s.status,
		Through: s.cache.through.Load(), Chosen: s.cache.chosen.Load(), Known: s.known}
	for _, p := range s.mem.maps {
		m.FrontEnd.Memory = append(m.FrontEnd.Memory, p.hand(m))
	}
	if x := s.inflight; x != nil {
		m.FrontEnd.Record = &MovedRecord{x.rings, x.num, x.hand(m), x.own}
	}
	if s.pages != nil {
		log := s.pages.hand(m)
		m.FrontEnd.Log = &log
	}
	m.FrontEnd.Logged = m.keep(leave(&s.logged.fd))
	for _, r := range s.rings {
		m.FrontEnd.Rings = append(m.FrontEnd.Rings, r.hand(m))
	}
	return nil
}

// pause stops the rings once their requests have ended. If ctx ends first, they run.
func (s *session) pause(ctx context.Context) error {
	for _, r := range s.rings {
		if w := r.worker; w != nil {
			r.goesOn = true
			w.do(func() { w.stopping, w.moving = true, true })
		}
	}
	left := 0
	for _, r := range s.rings {
		if r.worker != nil && !r.worker.endsBefore(ctx) {
			left++
		}
	}
	if left > 0 {
		s.begin()
		return fmt.Errorf("in %d rings of a virtual machine, I/O under way has not ended: %w", left, context.Cause(ctx))
	}
	for _, r := range s.rings {
		r.stop()
	}
	return nil
}

func (w *worker) endsBefore(ctx context.Context) bool {
	select {
	case <-w.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// begin has the rings run that are set up, those that stop as well.
func (s *session) begin() {
	for _, r := range s.rings {
		if w := r.worker; w != nil && !w.do(w.stay) {
			r.stop()
		}
		if err := r.update(); err != nil {
			r.fail(err)
		}
	}
}

// stay takes back that the worker is to stop. What has failed meanwhile, has failed.
func (w *worker) stay() {
	w.stopping, w.moving = false, false
	for _, j := range w.kept {
		w.settle(j, statusIOErr)
	}
	clear(w.kept)
	w.kept = w.kept[:0]
}

// keep takes over a file, and returns its number.
func (m *Moved) keep(fd int) int {
	if fd < 0 {
		return 0
	}
	m.Files = append(m.Files, os.NewFile(uintptr(fd), "vhost-user"))
	return len(m.Files)
}

// leave takes away a file.
func leave(fd *int) int {
	was := *fd
	*fd = -1
	return was
}

func (c *channel) leave() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return leave(&c.socket.fd)
}

func (p *mapping) hand(m *Moved) MovedRegion {
	d := p.desc
	return MovedRegion{d.guest, d.size, d.user, d.offset, m.keep(leave(&p.file))}
}

func (r *ring) hand(m *Moved) MovedRing {
	return MovedRing{r.num, r.addr.desc, r.addr.used, r.addr.avail, r.hasAddr, r.base, r.enabled, r.begun,
		m.keep(leave(&r.kick)), m.keep(leave(&r.call.fd)), m.keep(leave(&r.err.fd))}
}

// Take takes over the front end that another server has handed over, if there is one; serve
// serves it. It closes the files. The error says why that is impossible.
func (s *Server) Take(m *Moved) (serve func(), err error) {
	serve = func() {}
	defer m.Close()
	if m.FrontEnd == nil {
		return serve, nil
	}
	t := &taking{files: m.Files, cfg: s.cfg}
	t.cfg.Queues = len(m.FrontEnd.Rings)
	session, b, err := t.session(m.FrontEnd)
	if err != nil {
		return serve, fmt.Errorf("the virtual machine of the export %s: %w", s.cfg.Name, err)
	}
	if err := s.enter(b.conn); err != nil {
		session.close()
		session.export.Done()
		return serve, err
	}
	return func() {
		go func() {
			session.begin()
			s.drop(s.serve(session, b))
		}()
	}, nil
}

// taking is the taking over of a front end.
type taking struct {
	files []*os.File
	cfg   Config
}

// file returns another descriptor of a file, or -1 if there is none.
func (t *taking) file(number int) (int, error) {
	switch {
	case number == 0:
		return -1, nil
	case number < 0 || number > len(t.files):
		return -1, errors.New("a file was not handed over")
	}
	return unix.FcntlInt(t.files[number-1].Fd(), unix.F_DUPFD_CLOEXEC, 0)
}

func (t *taking) session(m *FrontEnd) (*session, *broken, error) {
	c, err := t.socket(m.Socket)
	if err != nil {
		return nil, nil, err
	}
	x, err := t.cfg.Exports.Open(t.cfg.Name)
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	b := &broken{conn: c}
	s := newSession(x, &t.cfg, b.fail)
	if err := t.fill(s, m); err != nil {
		s.close()
		x.Done()
		c.Close()
		return nil, nil, err
	}
	return s, b, nil
}

func (t *taking) socket(number int) (*net.UnixConn, error) {
	if number < 1 || number > len(t.files) {
		return nil, errors.New("the socket was not handed over")
	}
	c, err := net.FileConn(t.files[number-1])
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("what was handed over is no Unix socket")
	}
	return u, nil
}

// fill sets up a session as it was.
func (t *taking) fill(s *session, m *FrontEnd) error {
	s.features, s.protocol, s.status, s.known = m.Features, m.Protocol, m.Status, m.Known
	s.cache.through.Store(m.Through)
	s.cache.chosen.Store(m.Chosen)
	s.cache.accept(m.Features)
	var maps []*mapping
	for _, r := range m.Memory {
		p, err := t.mapping(r)
		if err != nil {
			drop(maps)
			return err
		}
		maps = append(maps, p)
	}
	if err := s.setMemory(maps); err != nil {
		return err
	}
	err := errors.Join(t.channel(s, m.Channel), t.record(s, m.Record), t.log(s, m))
	for i, r := range m.Rings {
		err = errors.Join(err, t.ring(s.rings[i], r))
	}
	return err
}

func (t *taking) mapping(r MovedRegion) (*mapping, error) {
	fd, err := t.file(r.File)
	if err != nil {
		return nil, err
	}
	defer closeFD(&fd)
	return mapRegion(regionDesc{r.Guest, r.Size, r.User, r.Offset}, fd)
}

func (t *taking) channel(s *session, number int) error {
	n, err := t.notifier(number)
	s.backend.set(n, s.protocol&protoConfig != 0)
	return err
}

// record makes the record that of this process.
func (t *taking) record(s *session, m *MovedRecord) error {
	if m == nil {
		return nil
	}
	p, err := t.mapping(m.Memory)
	if err != nil {
		return err
	}
	p.users.Store(1)
	s.inflight = newInflight(p, m.Rings, m.Entries)
	s.inflight.own = m.Own
	copy(s.inflight.tail, thisProcess[:])
	return nil
}

func (t *taking) log(s *session, m *FrontEnd) (err error) {
	if m.Log != nil {
		if s.pages, err = t.mapping(*m.Log); err != nil {
			return err
		}
		s.pages.users.Store(1)
	}
	s.logged, err = t.notifier(m.Logged)
	s.applyLog()
	return err
}

func (t *taking) notifier(number int) (notifier, error) {
	fd, err := t.file(number)
	if err != nil || fd < 0 {
		return noNotifier, err
	}
	return newNotifier(fd)
}

func (t *taking) ring(r *ring, m MovedRing) (err error) {
	r.num, r.addr, r.hasAddr = m.Size, ringAddr{desc: m.Desc, used: m.Used, avail: m.Avail}, m.HasAddress
	r.base, r.enabled, r.begun, r.goesOn = m.Position, m.Enabled, m.Begun, true
	var errs [3]error
	r.kick, errs[0] = t.file(m.Kick)
	r.call, errs[1] = t.notifier(m.Call)
	r.err, errs[2] = t.notifier(m.Err)
	return errors.Join(errs[:]...)
}
