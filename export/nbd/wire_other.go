//go:build !linux

package nbd

import (
	"net"
	"time"
)

func newSock(net.Conn, time.Duration) wire { return nil }
