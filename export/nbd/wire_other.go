//go:build !linux

package nbd

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

type poller struct{ running *sync.WaitGroup }

func newSock(net.Conn, time.Duration, *poller) wire { return nil }

func pair() (*net.UnixConn, *os.File, error) {
	return nil, nil, errors.ErrUnsupported
}
