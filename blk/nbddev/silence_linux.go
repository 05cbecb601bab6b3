package nbddev

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// limitSilence ends a TCP connection if sent data is not acknowledged for half a
// minute; keepalives do so only on an idle connection.
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
