package ublk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"udm/blk"
	"udm/internal/uring"
)

// ControlPath is the driver's control device. It does not exist without the driver.
const ControlPath = "/dev/ublk-control"

// ErrMissing reports that the kernel lacks the driver.
var ErrMissing = errors.New("the kernel has no ublk driver")

// ErrUnavailable reports that the kernel has no io_uring, or does not let this process use it.
var ErrUnavailable = uring.ErrUnavailable

// Control sends commands to the driver. They return EPERM without CAP_SYS_ADMIN, and ENODEV
// for a device that does not exist. Some commands wait for requests to the device, so the
// goroutines that serve the device must not call them.
type Control struct {
	fd       int
	features uint64
	legacy   bool
	do       command
}

// command executes a command for the device with the given ID and waits for its completion.
type command func(dir, nr, id uint32, buf []byte, data uint64) error

// Directions of payloads and numbers of commands.
const (
	dirRead  = 2
	dirWrite = 3 // in both directions

	cmdGetInfo      = 0x02
	cmdAdd          = 0x04
	cmdDelete       = 0x05
	cmdStart        = 0x06
	cmdStop         = 0x07
	cmdSetParams    = 0x08
	cmdStartRecover = 0x10
	cmdEndRecover   = 0x11
	cmdGetFeatures  = 0x13
	cmdDeleteLater  = 0x14
	cmdUpdateSize   = 0x15

	controlPayload = 32
	noQueue        = 0xffff
)

// AnyID lets the driver choose the ID of a device.
const AnyID = 0xffffffff

// number returns the number of a command: encoded like an ioctl, or plain on older kernels.
func number(legacy bool, dir, size, nr uint32) uint32 {
	if legacy {
		return nr
	}
	return dir<<30 | size<<16 | 'u'<<8 | nr
}

// Open opens the driver's control device. It fails with ErrMissing without the driver.
func Open() (*Control, error) {
	fd, err := unix.Open(ControlPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return nil, fmt.Errorf("%w (%s: %w)", ErrMissing, ControlPath, err)
	case err != nil:
		return nil, &os.PathError{Op: "open", Path: ControlPath, Err: err}
	}
	c := &Control{fd: fd}
	c.do = c.send
	buf := make([]byte, 8)
	switch err := c.do(dirRead, cmdGetFeatures, AnyID, buf, 0); {
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL):
		c.legacy = true
	case err != nil:
		c.Close()
		return nil, err
	}
	c.features = ne.Uint64(buf)
	return c, nil
}

// Close closes the control device. It does not affect block devices.
func (c *Control) Close() { unix.Close(c.fd) }

// Legacy reports whether the driver is older than Linux 6.5, and cannot report its features.
func (c *Control) Legacy() bool { return c.legacy }

// Faulty reports whether the driver of a kernel with this release, as uname prints it, may stop the kernel when
// a server is killed: it completes a command twice before Linux 6.12.115.
func Faulty(release string) bool {
	var major, minor, patch int
	n, _ := fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch)
	return n == 3 && major == 6 && minor == 12 && patch < 115
}

func (c *Control) send(dir, nr, id uint32, buf []byte, data uint64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := uring.New(uring.Options{Entries: 1, Big: true})
	if err != nil {
		return err
	}
	defer r.Close()
	var pin runtime.Pinner
	defer pin.Unpin()
	var cmd [80]byte
	ne.PutUint32(cmd[0:], id)
	ne.PutUint16(cmd[4:], noQueue)
	if len(buf) > 0 {
		pin.Pin(&buf[0])
		ne.PutUint16(cmd[6:], uint16(len(buf)))
		ne.PutUint64(cmd[8:], uint64(uintptr(unsafe.Pointer(&buf[0]))))
	}
	ne.PutUint64(cmd[16:], data)
	r.Entry().BigCommand(c.fd, number(c.legacy, dir, controlPayload, nr), cmd)
	for {
		if err := r.Enter(1); err != nil {
			return err
		}
		if done, ok := r.Next(); ok {
			return done.Err()
		}
	}
}

// repeat executes a command and retries it when a signal interrupts it.
func (c *Control) repeat(nr, id uint32, data uint64) error {
	for {
		if err := c.do(dirWrite, nr, id, nil, data); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Add creates a device with the limits l, and returns its actual parameters. The ID may be
// [AnyID]; the kernel may grant fewer queues than requested. The device survives its server
// unless l.ProcessMemory is set: then a new server would lack completed writes, so requests
// fail instead.
func (c *Control) Add(i Info, l *blk.Limits) (Info, error) {
	i.Flags = 0
	if !l.ProcessMemory {
		i.Flags = flagRecovery | flagReissue
	}
	if !c.legacy {
		i.Flags |= flagIoctl | c.features&(flagResize|flagUserCopy)
	}
	p := i.encode()
	if err := c.do(dirWrite, cmdAdd, i.ID, p, 0); err != nil {
		return i, err
	}
	i = decodeInfo(p)
	err := c.do(dirWrite, cmdSetParams, i.ID, params(l, i.MaxBytes), 0)
	if err != nil {
		err = errors.Join(err, c.Delete(i.ID))
	}
	return i, err
}

// Info returns the parameters of a device.
func (c *Control) Info(id uint32) (Info, error) {
	p := make([]byte, infoSize)
	err := c.do(dirRead, cmdGetInfo, id, p, 0)
	return decodeInfo(p), err
}

// Start creates the disk, /dev/ublkbN. pid is the process of the server. Start waits until
// the process serves all queues and the kernel has read the partition table.
func (c *Control) Start(id uint32, pid int) error { return c.repeat(cmdStart, id, uint64(pid)) }

// Stop removes the disk. Requests in flight fail.
func (c *Control) Stop(id uint32) error { return c.repeat(cmdStop, id, 0) }

// Delete deletes the device. It waits until the server and all users of the disk have closed
// it.
func (c *Control) Delete(id uint32) error { return c.repeat(cmdDelete, id, 0) }

// DeleteLater is Delete without waiting. It returns EOPNOTSUPP if the kernel lacks it.
func (c *Control) DeleteLater(id uint32) error { return c.do(dirRead, cmdDeleteLater, id, nil, 0) }

// Recover prepares a device for another server. It polls, for at most patience, until the
// kernel has noticed that the previous server ended, because there is no notification.
//
// It succeeds also for a device that is prepared already, because its last server ended before it sent
// a command. The driver then answers EINVAL, since no queue of the server was ready. If the server has
// mapped descriptors, drivers before Linux 6.16 let only the same process serve the device.
func (c *Control) Recover(id uint32, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		switch err := c.repeat(cmdStartRecover, id, 0); {
		case errors.Is(err, unix.EINVAL) && c.prepared(id):
			return nil
		case !errors.Is(err, unix.EBUSY) || time.Now().After(end):
			return err
		}
	}
}

// prepared reports whether a device waits for a server.
func (c *Control) prepared(id uint32) bool {
	i, err := c.Info(id)
	return err == nil && i.State == Quiesced && i.Flags&flagRecovery != 0
}

// Recovered passes waiting requests to the new server, the process pid.
func (c *Control) Recovered(id uint32, pid int) error {
	return c.repeat(cmdEndRecover, id, uint64(pid))
}

// Resize changes the size of the disk. It returns ENOTSUP before Linux 6.16.
func (c *Control) Resize(id uint32, sectors uint64) error {
	if c.features&flagResize == 0 {
		return syscall.ENOTSUP
	}
	return c.repeat(cmdUpdateSize, id, sectors)
}
