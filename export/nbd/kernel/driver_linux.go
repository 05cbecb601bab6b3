package kernel

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// ErrMissing reports that the kernel lacks the driver. Only the initial network
// namespace returns it.
var ErrMissing = errors.New("the kernel has no nbd driver")

// Driver is a connection to the driver, for one goroutine at a time. Its commands
// return EPERM without CAP_SYS_ADMIN in the initial user namespace.
type Driver struct {
	fd     int
	family uint16
	seq    uint32
}

// Open finds the driver.
func Open() (*Driver, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	d := &Driver{fd: fd}
	as, err := d.ask(ctrlFamily, ctrlGetFamily, ctrlVersion, attrString(nil, ctrlFamilyName, driverName))
	switch id := as[ctrlFamilyID]; {
	case errors.Is(err, unix.ENOENT):
		err = ErrMissing
	case err == nil && len(id) != 2:
		err = errMalformed
	case err == nil:
		d.family = ne.Uint16(id)
		return d, nil
	}
	d.Close()
	return nil, err
}

// Close closes the connection. Connected block devices stay.
func (d *Driver) Close() { unix.Close(d.fd) }

// Connect creates a block device from a socket and returns its index. EBUSY: the
// index is in use.
func (d *Driver) Connect(c Config) (uint32, error) {
	as, err := d.ask(d.family, cmdConnect, driverVersion, c.connectAttrs())
	if err != nil {
		return 0, err
	}
	if len(as[attrIndex]) != 4 {
		return 0, errMalformed
	}
	return ne.Uint32(as[attrIndex]), nil
}

// Resize changes the size in bytes of a block device. backend must be the one it
// was connected with. EINVAL: it is not connected, or is connected to something
// else.
func (d *Driver) Resize(index uint32, size uint64, backend string) error {
	_, err := d.ask(d.family, cmdReconfigure, driverVersion, resizeAttrs(index, size, backend))
	return err
}

// Reconnect gives a block device that has lost its server another socket and a size; c.Backend
// must be the one it was connected with, c.Flags the same. Requests that wait for a server are
// sent at once, those that the old server has not answered within the disk's io_timeout (sysfs,
// 30 seconds by default). EINVAL: it is not connected any more, or to something else. A driver
// that has not seen the end of the old connection yet drops the new one without an error.
func (d *Driver) Reconnect(c Config) error {
	_, err := d.ask(d.family, cmdReconfigure, driverVersion, c.reconnectAttrs())
	return err
}

// Disconnect disconnects a block device. Requests in flight and later ones fail.
// The device stays, unusable, until its last user closes it.
func (d *Driver) Disconnect(index uint32) error {
	_, err := d.ask(d.family, cmdDisconnect, driverVersion, attr32(nil, attrIndex, index))
	return err
}

// ask sends a request and waits for the complete answer.
func (d *Driver) ask(family uint16, cmd, version uint8, attrs []byte) (map[uint16][]byte, error) {
	d.seq++
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK}
	if err := unix.Sendto(d.fd, request(family, cmd, version, d.seq, attrs), 0, to); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	a := answer{seq: d.seq}
	for {
		buf := make([]byte, 16<<10) // a.attrs stay in it
		n, _, err := unix.Recvfrom(d.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if last, err := a.take(buf[:n]); last || err != nil {
			return a.attrs, err
		}
	}
}
