//go:build !linux

package nbddev

import "syscall"

// limitSilence leaves it to the system how long it waits for acknowledgements.
func limitSilence(string, string, syscall.RawConn) error { return nil }
