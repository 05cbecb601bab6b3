package nbd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"udm/export"
	"udm/internal/nbd/proto"
)

// A server can hand its connections to another one, which may be in another process:
// Settle, Hand, then Take for each connection. Clients notice nothing but a pause.
//
//	reader ── wakes ────────► what it has received of the next request goes along
//	requests in flight ── end ──► their replies are sent; what the socket does not
//	                              take goes along
//	                   └─ fail ──► go along and are repeated: nobody has had an answer
//
// So a request that waits in a suspended device can be moved by failing it.
//
// A connection with TLS cannot move, since its keys stay with the library. The old
// server goes on as its relay, which decrypts and encrypts, and the new one has a
// socket pair in its place; that pair can move again. See Relaying.

// ErrMoved is the error of a connection that Hand took.
var ErrMoved = errors.New("nbd: the connection was moved")

// Moved is a connection in transmission on its way to another server.
type Moved struct {
	Socket   *os.File `json:"-"`
	Export   string   // to open it by
	Mode     uint8
	Flags    uint16
	Size     uint64 // bytes, as the client knows it
	Contexts []MovedContext
	In       []byte // received, not answered
	Skip     uint64 // bytes of a refused request's payload that follow
	Out      []byte // to be sent
}

// MovedContext is a metadata context that the client has chosen.
type MovedContext struct {
	ID   uint32
	Name string
}

// Settle accepts no more clients. It waits for those in the handshake until ctx ends,
// and cuts off the rest. The others are served. Whoever has connected is either among them or
// left to the next server at the same socket.
func (s *Server) Settle(ctx context.Context) {
	s.acceptNoMore()
	s.stop(func(*conn) {})
	stop := context.AfterFunc(ctx, func() {
		for _, c := range s.all() {
			if c.shakes() {
				c.abort()
			}
		}
	})
	defer stop()
	for _, c := range s.all() {
		<-c.began
	}
}

// acceptNoMore closes the listeners and waits until their last connections are served.
func (s *Server) acceptNoMore() {
	s.mu.Lock()
	s.settling = true
	listeners := s.takeListenersLocked()
	s.mu.Unlock()
	for l := range listeners {
		l.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.accepting > 0 {
		s.left.Wait()
	}
}

// shakes reports whether the connection is in the handshake.
func (c *conn) shakes() bool {
	select {
	case <-c.began:
		return false
	default:
		return true
	}
}

func (s *Server) all() (list []*conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		list = append(list, c)
	}
	return list
}

// Reopen ends Settle: the server may Serve and Take again.
func (s *Server) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing, s.settling = false, false
}

// Hand stops reading requests of the connections to some exports, or all if of is nil, and
// takes them out, once those in flight have ended. If ctx ends first, all are served on. Settle has been called.
func (s *Server) Hand(ctx context.Context, of func(*Export) bool) ([]Moved, error) {
	list := s.to(of)
	if len(list) == 0 {
		return nil, nil
	}
	for _, c := range list {
		c.pause()
	}
	for _, c := range list {
		select {
		case <-c.gone:
		case <-ctx.Done():
		}
	}
	return s.handed(ctx, list)
}

// to returns the connections to some exports. One without a session is about to end.
func (s *Server) to(of func(*Export) bool) (list []*conn) {
	for _, c := range s.all() {
		c.mu.Lock()
		ours := of == nil || c.wire == nil || of(c.export)
		c.mu.Unlock()
		if ours {
			list = append(list, c)
		}
	}
	return list
}

// thereLocked is how many of some connections are still there.
func (s *Server) thereLocked(list []*conn) (n int) {
	for _, c := range list {
		if s.conns[c] {
			n++
		}
	}
	return n
}

// handed returns what was moved, or undoes that if it is not all.
func (s *Server) handed(ctx context.Context, of []*conn) ([]Moved, error) {
	s.mu.Lock()
	list, rest := s.moved, s.thereLocked(of)
	s.moved = nil
	s.closing = s.closing && rest == 0 // Take is about to add
	s.mu.Unlock()
	if rest == 0 {
		return list, nil
	}
	for _, c := range of {
		c.resume()
	}
	s.mu.Lock()
	list = append(list, s.moved...) // a connection may have moved meanwhile
	s.moved = nil
	s.mu.Unlock()
	err := fmt.Errorf("for %d of the clients, I/O under way has not ended: %w", rest, context.Cause(ctx))
	for _, m := range list {
		serve, terr := s.Take(m)
		if err = errors.Join(err, terr); terr == nil {
			serve()
		}
	}
	return nil, err
}

// Take takes over a connection; serve serves it. The error says why that is impossible.
func (s *Server) Take(m Moved) (serve func(), err error) {
	run, err := s.TakeConn(m)
	return func() {
		go func() {
			if err := run(); err != nil && err != ErrMoved {
				s.cfg.Log.Warn("nbd client dropped", "export", m.Export, "reason", err)
			}
		}()
	}, err
}

// TakeConn is Take for callers that wait: serve returns as ServeConn does.
func (s *Server) TakeConn(m Moved) (serve func() error, err error) {
	x, err := s.cfg.Exports.Open(m.Export)
	if err != nil {
		return nil, fmt.Errorf("the export %s of a client: %w", m.Export, err)
	}
	t := &session{export: x, mode: replyMode(m.Mode), flags: m.Flags, size: m.Size}
	if t.chosen, err = m.chosen(x); err != nil {
		x.Done()
		return nil, err
	}
	nc, err := net.FileConn(m.Socket)
	if err != nil {
		x.Done()
		return nil, err
	}
	m.Socket.Close()
	c, err := s.add(nc)
	if err != nil {
		x.Done()
		return nil, errors.Join(err, nc.Close())
	}
	t.rw = nc
	c.begin(t)
	c.in.before, c.in.skipping = m.In, m.Skip
	return func() error {
		defer s.remove(c)
		c.sendFirst(m.Out)
		return c.serve()
	}, nil
}

func (m *Moved) chosen(x *Export) ([]chosen, error) {
	var were []chosen
	for _, k := range m.Contexts {
		were = append(were, chosen{k.ID, export.Context{Name: k.Name}})
	}
	return resolve(x, were)
}

// Relaying waits until the last client with TLS that was handed on has left.
func (s *Server) Relaying() { s.running.Wait() }

// leftLocked takes a connection out of the list, if it is there.
func (s *Server) leftLocked(c *conn) {
	if s.conns[c] {
		delete(s.conns, c)
		close(c.gone)
	}
}

// pause makes the connection's goroutine move it.
func (c *conn) pause() {
	c.stop.CompareAndSwap(running, moving)
	c.mu.Lock()
	w := c.wire
	c.mu.Unlock()
	if w != nil {
		w.pause()
	}
}

// resume calls pause off, unless the connection has moved.
func (c *conn) resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stop.CompareAndSwap(moving, running)
	c.changed.Broadcast()
}

// conclude completes a request, or keeps it for the next server: if the connection is
// moved, what has failed is repeated there.
func (r *request) conclude(f *failure) {
	c := r.c
	if f == nil || c.stop.Load() != moving {
		r.seal(f)
		return
	}
	r.out, r.more = r.out[:0], nil
	c.mu.Lock()
	c.again = append(r.Append(c.again, c.mode == extended), r.data...)
	c.mu.Unlock()
}

// partOf keeps what has come of a request, or refuses it before all of it has come.
func (c *conn) partOf(r *request) {
	if c.in.skipping == 0 {
		c.partial = append(r.Append(nil, c.mode == extended), r.data...)
		return
	}
	f := c.check(r)
	if f == nil {
		f = fail(proto.EINVAL, "malformed payload")
	}
	r.seal(f)
}

// move takes the connection out once its requests have ended, and relays for the new
// server what cannot move. The error is errPaused if the move was called off.
func (c *conn) move() error {
	c.sendAside()
	_, fixed := c.wire.(*stream)
	c.mu.Lock()
	c.waiting = true
	for c.stop.Load() == moving && !c.stillLocked(fixed) {
		c.changed.Wait()
	}
	c.waiting = false
	c.mu.Unlock()
	if c.stop.Load() == aborted {
		c.end(net.ErrClosed)
		return net.ErrClosed
	}
	if !c.stop.CompareAndSwap(moving, draining) {
		c.goOn()
		return errPaused
	}
	if fixed {
		return c.relay()
	}
	c.helpers.Wait() // for nothing that waits
	c.handOn(c.wire.detach())
	return ErrMoved
}

// stillLocked reports whether no request is in flight, and, unless the client is relayed
// to, all replies are sent.
func (c *conn) stillLocked(relayed bool) bool {
	if relayed {
		return c.ended+uint64(len(c.queue)+len(c.work)) == c.taken
	}
	return c.ended == c.taken && !c.sending
}

// sendAside is flush on another goroutine.
func (c *conn) sendAside() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begun = c.taken
	c.queue = append(c.queue, c.batch...)
	c.batch, c.batched = c.batch[:0], 0
	if !c.sending && len(c.queue) > 0 {
		c.sending = true
		c.helpers.Add(1)
		go c.sendLater()
	}
}

// handOn leaves the connection to the next server, with a socket.
func (c *conn) handOn(socket *os.File) {
	m := Moved{Socket: socket, Export: c.export.Name, Mode: uint8(c.mode), Flags: c.flags, Size: c.size,
		In: c.rest(), Skip: c.in.skipping, Out: c.unsent}
	if c.export.Again != nil {
		m.Export = c.export.Again()
	}
	for _, x := range c.chosen {
		m.Contexts = append(m.Contexts, MovedContext{x.id, x.Name})
	}
	c.in.close()
	c.out.close()
	c.gate.Leave()
	c.session.export.Done()
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moved = append(s.moved, m)
	s.leftLocked(c)
}

// rest is what was received and is not answered.
func (c *conn) rest() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := append(append(c.again, c.partial...), c.in.rest()...)
	c.again, c.partial = nil, nil
	return p
}

// goOn serves on after a move that was called off. It sends what was left unsent first.
func (c *conn) goOn() {
	c.in.before = c.rest()
	c.mu.Lock()
	c.waiting = true
	for c.sending {
		c.changed.Wait()
	}
	c.waiting, c.sending = false, true
	c.mu.Unlock()
	c.wire.goOn()
	first := c.unsent
	c.unsent = nil
	c.sendUnlocked([][]byte{first})
	c.mu.Lock()
	c.sending = false
	c.sendLocked(true)
	c.mu.Unlock()
}

// sendUnlocked sends bytes by the goroutine that is sending.
func (c *conn) sendUnlocked(segs [][]byte) {
	rest, err := c.wire.write(segs)
	c.leaveUnsent(rest)
	if err != nil {
		c.wire.abort()
		c.mu.Lock()
		c.dead = true
		c.mu.Unlock()
	}
}

// sendFirst sends what the server before has left.
func (c *conn) sendFirst(p []byte) {
	if len(p) == 0 {
		return
	}
	r := c.take()
	r.out, r.outAt = p, -1<<30
	c.keep(r)
}

// relay hands on a socket pair in place of the connection, and copies between both until
// one of them ends.
func (c *conn) relay() error {
	ours, theirs, err := pair()
	if err != nil {
		c.end(err)
		return err
	}
	c.handOn(theirs)
	defer c.wire.close()
	defer ours.Close()
	c.waitIdle() // the replies so far are sent
	c.helpers.Wait()
	c.wire.goOn()
	rw := c.session.rw
	if nc, ok := rw.(net.Conn); ok {
		_ = nc.SetWriteDeadline(time.Time{}) // the next server has deadlines
	}
	down := make(chan struct{})
	go func() {
		defer close(down)
		_, _ = io.Copy(rw, ours) // ends with either side
		c.wire.abort()
	}()
	_, _ = io.Copy(ours, rw)
	_ = ours.CloseWrite()
	<-down
	return nil
}
