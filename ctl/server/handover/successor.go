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
)

// Limits of the new process.
const (
	greetTime = 30 * time.Second // from its start to its greeting; nobody waits for that
	takeTime  = 10 * time.Second // from the bundle to its readiness; I/O waits
)

// Successor is the new process, as the old one sees it.
type Successor struct {
	cmd  *exec.Cmd
	c    channel
	dead chan struct{} // closed when it has ended
}

// Start starts the new process and greets it: step 1. It says why that fails.
func Start(cmd *exec.Cmd, g Greeting) (*Successor, error) {
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

// Give sends the bundle, and waits until the new process is ready: step 4. The files of
// the bundle stay open here. After an error the new process is dead.
func (s *Successor) Give(b *Bundle) error {
	err := s.c.limit(takeTime)
	if err == nil {
		err = s.c.sendBundle(b)
	}
	if err = s.answer(err); err != nil {
		s.Kill()
	}
	return err
}

// Go lets the new process serve: step 5. From now on nothing may be taken back.
func (s *Successor) Go() error {
	return errors.Join(s.c.send(answer{}), s.c.conn.Close())
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
type Predecessor struct{ c channel }

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
	var fd int
	if _, err := fmt.Sscan(text, &fd); err != nil {
		return nil, fmt.Errorf("%s=%s: %w", variable, text, err)
	}
	f := os.NewFile(uintptr(fd), "predecessor")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", variable, text, err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("%s=%s is no Unix socket", variable, text)
	}
	return &Predecessor{channel{u}}, nil
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

// Receive waits for the bundle.
func (p *Predecessor) Receive() (*Bundle, error) {
	b, err := p.c.receiveBundle()
	return b, errGone(err)
}

// Refuse tells the old process why this one cannot take over. It may come at any time
// before Ready.
func (p *Predecessor) Refuse(why error) {
	_ = p.c.send(answer{Refused: why.Error()}) // else it sees this process end
	p.c.conn.Close()
}

// Ready tells the old process that this one can serve, and returns when it may: when the
// old one says so, or is dead.
func (p *Predecessor) Ready() error {
	defer p.c.conn.Close()
	if err := p.c.send(answer{}); err != nil && !errors.Is(err, syscall.EPIPE) {
		return err
	}
	var a answer
	err := p.c.receive(&a)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

func errGone(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the old process has ended, or does not hand over after all")
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
