//go:build !linux

package nbddev

import "syscall"

// limitSilence leaves the timeout for acknowledgements to the system.
func limitSilence(string, string, syscall.RawConn) error { return nil }
