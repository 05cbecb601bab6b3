//go:build !linux

package nbd

import (
	"errors"
	"net"
	"os"
	"time"
)

func newSock(net.Conn, time.Duration) wire { return nil }

type waiters struct{}

func (waiters) add(wire)      {}
func (waiters) note()         {}
func (waiters) interrupt(int) {}

func pair() (*net.UnixConn, *os.File, error) {
	return nil, nil, errors.ErrUnsupported
}
