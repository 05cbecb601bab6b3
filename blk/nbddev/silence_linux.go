package nbddev

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitSilence ends a TCP connection whose data are not acknowledged for half a
// minute: keepalives do that only where nothing is under way.
func limitSilence(network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var err error
	if cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000)
	}); cerr != nil {
		return cerr
	}
	return err
}
