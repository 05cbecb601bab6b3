//go:build !linux

package nbd

import (
	"errors"
	"net"
	"os"
	"time"
)

func newSock(net.Conn, time.Duration) wire { return nil }

func waitsAt(wire) (uint64, bool) { return 0, false }

func interrupt(map[uint64]bool) {}

func pair() (*net.UnixConn, *os.File, error) {
	return nil, nil, errors.ErrUnsupported
}
