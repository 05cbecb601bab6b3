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
	"syscall"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/blk/nbdclient"
	"udm/dm"
	"udm/export/nbd/kernel"
)

// link is the daemon's part of an attachment by nbd: a connection that it serves to
// the kernel, and a helper that holds it.
//
// The kernel's driver waits for answers without limit, as it should for a suspended
// device, so something must disconnect it when the daemon dies. The holder notices
// that at the end of its input, and disconnects.
type link struct {
	path string
	gone chan struct{} // closed when the connection and the holder have ended
}

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

// connect makes a block device of the kernel's nbd driver from an export.
func (k *Kernel) connect(j kernelJob, name string) (*link, error) {
	if len(k.helper) == 0 {
		return nil, errNoHelper
	}
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- k.nbd.ServeConn(ours) }()
	h, err := k.startHolder(j, name, theirs)
	theirs.Close() // passed to the holder, and then to the kernel
	if err != nil {
		<-served
		return nil, err
	}
	l := &link{h.path, make(chan struct{})}
	go func() {
		h.end(<-served == nil && !k.cut.Load())
		close(l.gone)
	}()
	return l, nil
}

// socketPair returns a connection between the daemon and the kernel.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	file := os.NewFile(uintptr(fds[0]), "nbd")
	defer file.Close()
	ours, err := net.FileConn(file)
	if err != nil {
		unix.Close(fds[1])
		return nil, nil, err
	}
	return ours, os.NewFile(uintptr(fds[1]), "nbd"), nil
}

// holder is the daemon's side of the helper that holds a link.
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
	var n uint32
	if _, serr := fmt.Sscanf(j.Path, nbdPrefix+"%d", &c.Index); serr == nil {
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
	return j.Path, nil
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
	if in.Decode(&bye) == nil || !j.ours() {
		return nil
	}
	return j.disconnect()
}

func (j *kernelJob) disconnect() error {
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
