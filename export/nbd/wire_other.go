//go:build !linux

package nbd

import (
	"errors"
	"net"
	"os"
	"time"
)

func newSock(net.Conn, time.Duration) wire { return nil }

func interrupt() {}

func pair() (*net.UnixConn, *os.File, error) {
	return nil, nil, errors.ErrUnsupported
}
