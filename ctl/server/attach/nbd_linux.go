package attach

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/ctl"
	"udm/dm"
	"udm/export/nbd"
	"udm/export/nbd/kernel"
)

// link is the daemon's part of an attachment by nbd: a connection that it serves to the
// kernel. When the daemon dies, the kernel's requests wait for the next one, which connects
// again. The driver then repeats those that were in progress, within stuckAfter.
//
// A device in the memory of the daemon must not go on with another one. The driver waits for
// answers without limit, as it should for a suspended device, so something must disconnect it:
// a helper, the holder, notices at the end of its input that the daemon has died.
type link struct {
	path string
	gone chan struct{} // closed when the connection and the holder have ended
}

const (
	// reconnectTime is how long the kernel's requests wait for the next daemon: without limit,
	// as far as 32 bits of the kernel's clock allow.
	reconnectTime = 7 * 24 * time.Hour
	// stuckAfter is after what time the driver looks whether a request is in progress with a
	// server that has died.
	stuckAfter = 5 * time.Second
	// deadTime is how long the driver may need to see that the connection of a daemon that has
	// ended has ended, too; it is asked again and again, because it announces that to nobody.
	deadTime, askEvery = time.Minute, 10 * time.Millisecond
)

func (l *link) alive() bool {
	if l == nil {
		return false
	}
	select {
	case <-l.gone:
		return false
	default:
		return true
	}
}

func (l *link) wait() {
	if l != nil {
		<-l.gone
	}
}

// connect makes a block device of the kernel's nbd driver from an export, or goes on with the
// one that a daemon before has left.
func (k *Kernel) connect(j kernelJob, name string) (l *link, err error) {
	if len(k.helper) == 0 {
		return nil, errNoHelper
	}
	for end := time.Now().Add(deadTime); ; time.Sleep(askEvery) {
		if l, err = k.tryConnect(j, name); err != errDropped || time.Now().After(end) {
			return l, err
		}
	}
}

var errDropped = errors.New("the nbd driver still has the connection of the daemon before; try again later")

// tryConnect is connect unless the driver has dropped the connection.
func (k *Kernel) tryConnect(j kernelJob, name string) (*link, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- k.nbd.ServeConn(conn) }()
	h, err := k.startHolder(j, name, theirs)
	if err == nil && !j.Memory {
		h.end(true)
	}
	theirs.Close() // passed to the holder, and then to the kernel
	if err != nil {
		<-served
		return nil, err
	}
	j.Path = h.path
	if !j.Memory && hungUp(ours) {
		<-served
		return nil, errDropped
	}
	l := &link{h.path, make(chan struct{})}
	go func() {
		err := <-served
		if j.Memory {
			h.end(err == nil && !k.cut.Load())
		} else {
			k.linkEnded(j, err)
		}
		close(l.gone)
	}()
	return l, nil
}

// hungUp reports whether nobody has the other end of a connection.
func hungUp(socket *os.File) bool {
	n, _, err := unix.Recvfrom(int(socket.Fd()), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return n == 0 && err == nil
}

// linkEnded disconnects the kernel from a link that ended otherwise than by the kernel, while
// this daemon runs on: nobody would answer.
func (k *Kernel) linkEnded(j kernelJob, err error) {
	if err == nil || errors.Is(err, nbd.ErrMoved) || k.cut.Load() {
		return
	}
	j.Do = jobDisconnect
	if _, derr := k.job(j); derr != nil {
		k.log.Error("a block device has lost its server, and cannot be disconnected", "path", j.Path, "reason", err, "error", derr)
	}
}

// takeLink takes over a connection that another daemon has served; serve serves it.
func (k *Kernel) takeLink(m nbd.Moved, minor uint32) (l *link, serve func(), err error) {
	run, err := k.nbd.TakeConn(m)
	if err != nil {
		return nil, nil, err
	}
	j := k.newJob(jobDisconnect, minor, ctl.DriverNBD, k.devices[minor].path)
	l = &link{j.Path, make(chan struct{})}
	return l, func() {
		go func() {
			k.linkEnded(j, run())
			close(l.gone)
		}()
	}, nil
}

// socketPair returns a connection between the daemon and the kernel.
func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "nbd"), os.NewFile(uintptr(fds[1]), "nbd"), nil
}

// holder is the daemon's side of the helper that connects, and may hold the link.
type holder struct {
	cmd  *exec.Cmd
	in   io.Closer
	say  *json.Encoder
	path string
}

// startHolder passes a socket to the kernel, after the NBD handshake on it.
func (k *Kernel) startHolder(j kernelJob, name string, socket *os.File) (*holder, error) {
	offer, err := nbdclient.Negotiate(socket, nbdclient.Options{Export: name, Simple: true})
	if err != nil {
		return nil, err
	}
	j.Size, j.Flags, j.Block = offer.Size, offer.Flags, max(offer.MinBlock, blk.SectorSize)
	cmd := exec.Command(k.helper[0], k.helper[1:]...)
	var errs bytes.Buffer
	cmd.ExtraFiles, cmd.Stderr = []*os.File{socket}, &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &holder{cmd: cmd, in: in, say: json.NewEncoder(in)}
	var done jobDone
	if err = h.say.Encode(j); err == nil {
		err = json.NewDecoder(out).Decode(&done)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", cmd, err)
	} else if h.path, err = done.result(); err == nil {
		return h, nil
	}
	in.Close()
	if werr := cmd.Wait(); werr != nil {
		err = fmt.Errorf("%w: %w %s", err, werr, bytes.TrimSpace(errs.Bytes()))
	}
	return nil, err
}

// end ends the holder when the connection is no longer served. A connection that the
// kernel ended need not be disconnected.
func (h *holder) end(byKernel bool) {
	if byKernel {
		_ = h.say.Encode(struct{}{})
	}
	h.in.Close()
	_ = h.cmd.Wait() // its answer has been read
}

// heldSocket is the descriptor of the holder's socket.
const heldSocket = 3

// connect passes the socket to the kernel.
func (j *kernelJob) connect() (string, error) {
	d, err := kernel.Open()
	if err != nil {
		return "", j.refused(err)
	}
	defer d.Close()
	defer unix.Close(heldSocket)
	c := kernel.Config{Index: -1, Size: j.Size, Block: j.Block, Flags: j.Flags, Backend: j.File, Socket: heldSocket}
	if !j.Memory {
		c.Wait = uint64(reconnectTime / time.Second)
	}
	var n uint32
	if _, serr := fmt.Sscanf(j.Path, nbdPrefix+"%d", &c.Index); serr == nil {
		if !j.Memory && j.ours() && d.Reconnect(c) == nil {
			return j.Path, nil
		}
		n, err = d.Connect(c)
	}
	if c.Index < 0 || errors.Is(err, syscall.EBUSY) {
		c.Index = -1
		n, err = d.Connect(c)
	}
	if err != nil {
		return "", j.refused(err)
	}
	j.Path = fmt.Sprint(nbdPrefix, n)
	if !j.ours() {
		return "", errors.Join(dm.Errorf(syscall.ENOTSUP, "%s does not report its backend; attach --nbd needs Linux 5.14 or later", j.Path), d.Disconnect(n))
	}
	j.lookForStuck()
	return j.Path, nil
}

// lookForStuck has the driver look for requests of a dead server earlier than after 30 seconds.
// Requests that take longer for another reason, such as a suspended device, only make it log.
func (j *kernelJob) lookForStuck() {
	path := filepath.Join("/sys/block", filepath.Base(j.Path), "queue/io_timeout")
	_ = os.WriteFile(path, strconv.AppendInt(nil, stuckAfter.Milliseconds(), 10), 0) // else it takes longer
}

// refused says which permission or part of the kernel is missing.
func (j *kernelJob) refused(err error) error {
	switch {
	case errors.Is(err, kernel.ErrMissing):
		return dm.Errorf(syscall.ENODEV, "%v; try modprobe nbd", err)
	case errors.Is(err, syscall.EPERM):
		return dm.Errorf(syscall.EPERM, "the daemon, which runs as user %d, may not use the nbd driver; run it with CAP_SYS_ADMIN, or use udm mount", os.Geteuid())
	case errors.Is(err, syscall.EINVAL) && int(j.Block) > os.Getpagesize():
		return dm.Errorf(syscall.EINVAL, "the nbd driver does not support blocks of %d bytes, only up to %d", j.Block, os.Getpagesize())
	}
	return fmt.Errorf("nbd driver: %w", err)
}

// hold waits until the daemon ends the link or dies. A signal sent to both processes
// is left to the daemon.
func (j *kernelJob) hold(in *json.Decoder) error {
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	var bye struct{}
	if in.Decode(&bye) == nil {
		return nil
	}
	if err := j.disconnect(); !errors.Is(err, errUnused) {
		return err
	}
	return nil
}

// disconnect ends the block device; errUnused: it is not ours.
func (j *kernelJob) disconnect() error {
	if !j.ours() {
		return errUnused
	}
	return j.drive(func(d *kernel.Driver, n uint32) error { return d.Disconnect(n) })
}

func (j *kernelJob) resize() error {
	if !j.ours() {
		return errUnused
	}
	return j.drive(func(d *kernel.Driver, n uint32) error { return d.Resize(n, j.Size, j.File) })
}

// drive calls do with the driver and the number of the job's block device.
func (j *kernelJob) drive(do func(*kernel.Driver, uint32) error) error {
	var n uint32
	if _, err := fmt.Sscanf(j.Path, nbdPrefix+"%d", &n); err != nil {
		return errUnused
	}
	d, err := kernel.Open()
	if err == nil {
		defer d.Close()
		err = do(d, n)
	}
	if err != nil {
		return j.refused(err)
	}
	return nil
}
