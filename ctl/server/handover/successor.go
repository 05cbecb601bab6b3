//go:build unix

package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the new process.
const (
	greetTime = 30 * time.Second // from its start to its greeting; nobody waits for that
	takeTime  = 10 * time.Second // from a bundle to its answer; I/O waits
	// returnTime is for giving back: its clients' I/O has to end.
	returnTime = 30 * time.Second
)

// Successor is the new process, as the old one sees it.
type Successor struct {
	cmd  *exec.Cmd
	c    channel
	dead chan struct{} // closed when it has ended
}

// room is how many open files the table of a process has room for before anything is handed over.
const room = 1 << 16

// makeRoom enlarges the process's table of open files at once. Linux does so each time that the table
// is full, and waits up to tens of milliseconds then, in which clients would wait, too.
func makeRoom() {
	var most syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &most) != nil {
		return
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	defer f.Close()
	if fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, int(min(uint64(most.Cur), room))-1); err == nil {
		_ = unix.Close(fd)
	}
}

// Start starts the new process and greets it: step 1. It says why that fails.
func Start(cmd *exec.Cmd, g Greeting) (*Successor, error) {
	makeRoom()
	ours, theirs, err := pair()
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Environ(), fmt.Sprintf("%s=%d", variable, 3+len(cmd.ExtraFiles)))
	cmd.ExtraFiles = append(cmd.ExtraFiles, theirs)
	err = cmd.Start()
	theirs.Close() // else the end of the new process would not be seen
	if err != nil {
		ours.Close()
		return nil, fmt.Errorf("the new program cannot be started: %w", err)
	}
	s := &Successor{cmd, channel{ours}, make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its state is in cmd
		close(s.dead)
	}()
	err = s.c.limit(greetTime)
	if err == nil {
		err = s.c.send(g)
	}
	if err = s.answer(err); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// answer receives an answer, unless sending has failed.
func (s *Successor) answer(err error) error {
	var a answer
	if rerr := s.c.receive(&a); rerr == nil {
		err = nil
		if a.Refused != "" {
			err = fmt.Errorf("the new process refuses: %s", a.Refused)
		}
	} else if err == nil {
		err = rerr
	}
	if err == nil || a.Refused != "" {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.New("the new process has not answered in time")
	}
	<-s.dead // it has closed its end
	return fmt.Errorf("the new process has ended (%v); its log says why", s.cmd.ProcessState)
}

// Do has the new process carry out an order with a bundle, and waits for its answer. The
// files of the bundle stay open here.
func (s *Successor) Do(o Order, b *Bundle) error {
	err := s.c.limit(takeTime)
	if err == nil {
		err = s.c.send(o)
	}
	if err == nil {
		err = s.c.sendBundle(b)
	}
	return s.answer(err)
}

// Go lets the new process serve what it was sent last.
func (s *Successor) Go() error { return errors.Join(s.c.limit(takeTime), s.c.send(answer{})) }

// Finish tells the new process that it has everything.
func (s *Successor) Finish() error {
	return errors.Join(s.c.limit(takeTime), s.c.send(Finish), s.c.conn.Close())
}

// Return has the new process give back all that it serves. After an error it is dead, and
// what it had is closed.
func (s *Successor) Return() (*Bundle, error) {
	err := s.c.limit(returnTime)
	if err == nil {
		err = s.c.send(Return)
	}
	if err = s.answer(err); err == nil {
		var b *Bundle
		if b, err = s.c.receiveBundle(); err == nil {
			return b, s.c.conn.Close()
		}
	}
	s.Kill()
	return nil, err
}

// PID is that of the new process.
func (s *Successor) PID() int { return s.cmd.Process.Pid }

// Kill ends the new process, and waits until it has ended.
func (s *Successor) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.dead
	s.c.conn.Close()
}

// Predecessor is the old process, as the new one sees it.
type Predecessor struct {
	c channel
	p process
}

// Inherited is the old process if there is one that has started this one to take over,
// else nil. Children of this process do not see it.
func Inherited() (*Predecessor, error) {
	text := os.Getenv(variable)
	if text == "" {
		return nil, nil
	}
	if err := os.Unsetenv(variable); err != nil {
		return nil, err
	}
	makeRoom()
	var fd int
	if _, err := fmt.Sscan(text, &fd); err != nil {
		return nil, fmt.Errorf("%s=%s: %w", variable, text, err)
	}
	f := os.NewFile(uintptr(fd), "predecessor")
	defer f.Close()
	p, err := peer(fd)
	if err != nil {
		return nil, fmt.Errorf("the process before: %w", err)
	}
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", variable, text, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%s=%s is no Unix socket", variable, text)
	}
	return &Predecessor{channel{u}, p}, nil
}

// Greet receives the greeting of the old process, and refuses it or not.
func (p *Predecessor) Greet(check func(Greeting) error) error {
	var g Greeting
	if err := p.c.receive(&g); err != nil {
		return errGone(err)
	}
	if g.Protocol != protocol {
		return fmt.Errorf("the old process hands over by protocol %d, this program takes over by %d; restart the daemon", g.Protocol, protocol)
	}
	if err := check(g); err != nil {
		return err
	}
	return p.c.send(answer{})
}

// Receive waits for the next order, and its bundle if it has one.
func (p *Predecessor) Receive() (o Order, b *Bundle, err error) {
	if err := p.c.receive(&o); err != nil {
		return o, nil, errGone(err)
	}
	if o == Finish || o == Return {
		return o, nil, nil
	}
	b, err = p.c.receiveBundle()
	return o, b, errGone(err)
}

// Refuse tells the old process why this one cannot do what it is to do; nil: it can, or has
// done it.
func (p *Predecessor) Refuse(why error) error {
	var a answer
	if why != nil {
		a.Refused = why.Error()
	}
	if err := p.c.send(a); err != nil && !gone(err) {
		return err
	}
	return nil // if the old process has ended, the next message does not come
}

// Ready tells the old process that this one can serve what it was sent, and returns when it
// may: when the old one says so, or is dead.
func (p *Predecessor) Ready() error {
	if err := p.Refuse(nil); err != nil {
		return err
	}
	var a answer
	if err := p.c.receive(&a); !gone(err) {
		return err
	}
	return nil
}

// Give gives everything back, as ordered.
func (p *Predecessor) Give(b *Bundle) error {
	return errors.Join(p.Refuse(nil), p.c.sendBundle(b))
}

// Ended waits, after ErrGone, until the old process has ended: until then it may have disks
// and sockets open that were not handed over.
func (p *Predecessor) Ended() error { return p.p.ended(takeTime) }

// Close ends the conversation.
func (p *Predecessor) Close() {
	p.c.conn.Close()
	p.p.close()
}

func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func errGone(err error) error {
	if gone(err) {
		return ErrGone
	}
	return err
}

// pair returns both ends of a socket.
func pair() (*net.UnixConn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	f := os.NewFile(uintptr(fds[0]), "successor")
	defer f.Close()
	theirs := os.NewFile(uintptr(fds[1]), "predecessor")
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}
